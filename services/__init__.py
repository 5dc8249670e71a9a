"""The four services, the gateway before them, and the command that runs them."""
