"""Helpers of all tiers; ``tests`` is on pytest's path, so tests import ``support``."""
