"""Validation, containers, weighting, duplicate detection and batching of samples."""
