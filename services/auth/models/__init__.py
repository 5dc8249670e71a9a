"""The rules of auth: apps, people, codes and tokens. No I/O, no clock; time comes in as ``at``."""
