"""Mail and texts, their templates, and marketing consent."""
