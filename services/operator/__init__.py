"""The operators' verbs of the `nest` command. They speak the HTTP API with an internal key, as any other caller."""
