"""What lies in the watched folders, and what of it is complete."""
