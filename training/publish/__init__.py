"""Presets, tables and pictures from runs and measurements."""
