"""What a paper's pseudocode names in one word or not at all: networks, replay, seeds, run folders, checkpoints."""
