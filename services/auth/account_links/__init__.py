"""Mailed links to accounts with passwords: new passwords, and proof of addresses."""
