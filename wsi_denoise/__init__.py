"""Denoise whole-slide images dropped into a folder, with evidence per slide. Research use only, derived images."""

__version__ = "0.1.0"
NOTICE = "research use only, derived image"
