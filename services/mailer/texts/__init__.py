"""Texts: rendered and sent through a provider."""
