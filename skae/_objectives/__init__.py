"""Objectives: losses, regularizers, and how they are combined in training."""
