"""Plan changes that a person orders: cancellation and its withdrawal."""
