"""Backends that run the network."""
