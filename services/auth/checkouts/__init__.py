"""Checkouts: the part that auth does, which knows the clients and the addresses of users."""
