"""The state of a customer: subscriptions as an app shows them, and what the person has to do."""
