"""Paused partitions of all services: list and resume."""
