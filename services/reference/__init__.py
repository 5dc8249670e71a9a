"""Generator of the references: the OpenAPI document of the HTTP API, and the page and example of all settings."""
