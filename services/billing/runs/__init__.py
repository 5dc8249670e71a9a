"""Stripe runs: verify, reconcile, sweep, replay and import, each in small steps."""
