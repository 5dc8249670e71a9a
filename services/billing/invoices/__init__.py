"""Invoices of Stripe: the pages that pay or show them."""
