"""Client of Stripe's API: calls, the objects that billing reads, and safe retries. Imports nothing else of billing."""
