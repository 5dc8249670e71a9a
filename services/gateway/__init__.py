"""HTTP gateway: requests become messages, replies become responses. It has no state of its own."""
