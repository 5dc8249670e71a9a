"""Runs over the whole account, a step at a time: comparing, repairing, fetching lost events, and taking it over."""
