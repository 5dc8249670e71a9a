"""Dead letters: their records, topics and readers."""
