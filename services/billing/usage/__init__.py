"""Usage of metered prices, reported by back ends and sent to the meters of Stripe."""
