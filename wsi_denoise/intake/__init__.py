"""Find the slides in the watched folders, and decide when they are complete."""
