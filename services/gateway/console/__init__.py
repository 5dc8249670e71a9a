"""Console: pages for operators, which call the same methods as the `nest` command. No state of its own."""
