"""The first draft of a project, read off a database: source file, contracts, and what stands around them."""
