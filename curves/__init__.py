"""Learning curves of any run folder: what plot.py reads, computes and draws. No torch."""
