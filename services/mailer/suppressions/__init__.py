"""Suppression list, and the bounces and complaints that fill it."""
