"""Personal data of a data subject: its collections, their export and their erasure."""
