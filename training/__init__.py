"""Programs that train the shipped weights and measure the evidence about them."""
