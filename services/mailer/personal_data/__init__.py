"""Export and erasure of the mailer's personal data."""
