"""Algorithms and tasks of your own, as docs/your_own_algorithm.md builds them."""
