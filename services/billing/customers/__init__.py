"""Stripe customers: their mapping to users, and the user to whom a Stripe object belongs."""
