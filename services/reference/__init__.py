"""What does the HTTP API look like? Its reference, from the tables, models and refusals that run."""
