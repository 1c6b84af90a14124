"""Clean images and how crops are drawn from them."""
