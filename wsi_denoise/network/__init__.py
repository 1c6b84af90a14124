"""IRUNet, its weights, and running it on pixels."""
