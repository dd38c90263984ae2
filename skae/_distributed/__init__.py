"""Data-parallel fit."""
