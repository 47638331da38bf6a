"""The inventory service of a library: its tables, a generated catalogue and a live load."""
