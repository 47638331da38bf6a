"""Sources: the declarative file, its compilation, and what it needs in database, topics and Connect."""
