"""Disputes: records synchronized with Stripe, and the mails to operators about them."""
