"""Users and their identifiers."""
