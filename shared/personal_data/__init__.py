"""Personal data: its export and its erasure in every service."""
