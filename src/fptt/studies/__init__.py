"""Experiments that the package repeats: each is one call that returns the rows of one table."""
