"""The control database: its schema, and what operators read of it."""
