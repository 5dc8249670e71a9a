"""Subscriptions and trials, kept equal to Stripe."""
