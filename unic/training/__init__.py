"""Trainings: their inputs, pairs, losses and steps, and what a trained model predicts."""
