"""Owners, their applications, and their passwords."""
