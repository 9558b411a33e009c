"""Fits the step-time model to public measurements and says how well it predicts those that it has not seen."""
