"""Billing history: what happened to a user's money and access, in order."""
