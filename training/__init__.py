"""Programs that make the shipped weights and the evidence about them."""
