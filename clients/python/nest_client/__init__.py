"""Client of Nest."""
