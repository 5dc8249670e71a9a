"""Messages and refusals of mailer."""
