"""Access tokens, refresh tokens and token families."""
