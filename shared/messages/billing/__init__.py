"""Messages and refusals of billing."""
