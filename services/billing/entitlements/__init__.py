"""Entitlements: the features to which the subscriptions of a user entitle."""
