"""Deliveries of mails and texts, and their list for operators."""
