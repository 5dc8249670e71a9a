"""Contracts of mailer: commands, queries, events, replies and refusals."""
