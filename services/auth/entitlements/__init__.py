"""Entitlements of users, as billing reports them, for access tokens."""
