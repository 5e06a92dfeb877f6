"""Files: atomic writing, training state, trained models."""
