"""Outgoing webhooks: what auth knows about them, which the mailer delivers."""
