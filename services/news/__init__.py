"""News items for the clients that show them."""
