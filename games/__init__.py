"""Small games whose optimum can be computed: tabular and one-step learners, the paper's theorems, ideal values."""
