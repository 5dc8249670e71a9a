"""Pages of the double for people: Checkout, the customer portal, hosted invoices and receipts."""
