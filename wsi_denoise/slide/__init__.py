"""Slides: reading, geometry, tissue, and pyramidal TIFFs."""
