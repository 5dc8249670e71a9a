"""Branding of the mails and texts of each client."""
