"""Clients: the apps that may log users in."""
