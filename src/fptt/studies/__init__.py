"""Experiments that the package can repeat: the demo, and studies on real data."""
