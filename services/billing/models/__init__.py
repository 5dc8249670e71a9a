"""What is true of subscriptions, trials and payers: rules alone, without I/O, a clock or a driver."""
