"""The page a lab keeps open: queue, comparison, history."""
