"""Mails: rendered, composed and handed over to a mail server."""
