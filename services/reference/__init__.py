"""Generator of the API reference: an OpenAPI document from the gateway's tables, the messages and the refusals."""
