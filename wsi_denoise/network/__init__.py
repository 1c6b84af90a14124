"""IRUNet, its weights, and inference on pixels."""
