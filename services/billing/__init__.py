"""Billing: subscriptions, trials, payments and disputes, synchronized with Stripe."""
