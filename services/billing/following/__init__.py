"""How our records follow Stripe: read what is true there, store it, and say what is new."""
