"""Outgoing webhooks: events of users and subscriptions, posted to the endpoints of apps."""
