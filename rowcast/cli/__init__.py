"""The `rowcast` command."""
