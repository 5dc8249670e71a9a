"""Rendering of mails and texts from templates."""
