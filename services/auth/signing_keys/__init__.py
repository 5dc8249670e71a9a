"""ActiveKey keys and their rotation."""
