"""`nest stripe setup`: what an account of Stripe needs, compared with what it has."""
