"""Plans: products and prices of Stripe, kept as records and listed for apps."""
