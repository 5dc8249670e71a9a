"""What every service stands on: the contracts, the bus, the work and its inbox."""
