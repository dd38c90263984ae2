"""Samples: containers, weights, duplicates, validation and batches."""
