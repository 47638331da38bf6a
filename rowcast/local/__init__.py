"""The embedded stack: real PostgreSQL, Kafka and Kafka Connect on this machine, without Docker."""
