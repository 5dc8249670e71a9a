"""Users, identifiers, magic links and tokens."""
