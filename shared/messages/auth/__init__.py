"""Contracts of auth: commands, queries, events, replies and refusals."""
