"""Login by phone number."""
