"""Measurements of presets, runs and other methods."""
