"""Contracts of billing: commands, queries, events, replies and refusals."""
