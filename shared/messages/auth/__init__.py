"""Messages and refusals of auth."""
