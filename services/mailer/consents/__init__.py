"""Marketing consents, their sync to Mailchimp, and unsubscribe links."""
