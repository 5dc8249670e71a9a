"""Payments: records of Stripe payment intents, and the mails about failed ones."""
