"""Sealing keys: the number of messages that each has sealed."""
