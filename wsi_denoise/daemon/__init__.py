"""The daemon: watches the inboxes, claims jobs and runs them."""
