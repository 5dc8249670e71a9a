"""Checkouts: pages of Stripe on which users subscribe or pay once, and what became of them."""
