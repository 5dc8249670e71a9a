"""Sessions: the logins of a user."""
