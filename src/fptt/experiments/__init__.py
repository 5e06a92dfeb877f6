"""Experiments: runs that are decided by plain data, repeated over seeds, and kept in results/."""
