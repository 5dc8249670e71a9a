"""All that is said to Stripe: how it is called, what is read there, what is ordered. It knows none of our records."""
