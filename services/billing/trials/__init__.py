"""Trials: one for each user and device, reserved here and then created in Stripe."""
