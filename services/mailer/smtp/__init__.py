"""SMTP: sessions, connection pools and failover."""
