"""Users of the owners' applications."""
