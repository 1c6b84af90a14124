"""Pixels for the viewer: tiles, their difference, and maps."""
