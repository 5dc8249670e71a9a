"""Exports and erasures of a user's personal data."""
