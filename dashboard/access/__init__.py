"""Signing in, sessions, and protection against other sites."""
