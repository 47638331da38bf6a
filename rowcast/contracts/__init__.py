"""Contracts: the committed JSON Schema of every published entity, and what is derived from it."""
