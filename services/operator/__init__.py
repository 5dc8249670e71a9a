"""Commands of `nest` for operators. They call the HTTP API with an internal key."""
