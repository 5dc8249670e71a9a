"""The rules of news: what an item is, whom it reaches, where it may lead. No I/O, no clock; time comes in as ``at``."""
