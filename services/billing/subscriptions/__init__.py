"""Subscriptions: records synchronized with Stripe, queries, duplicates and refunds."""
