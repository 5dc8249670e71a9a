"""Stripe events: storage, the reading that each type causes, and replay."""
