"""Dead letters of all services: search, replay, erasure."""
