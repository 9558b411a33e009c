"""Data files of known engines, models and accelerators, and their pure parsing."""
