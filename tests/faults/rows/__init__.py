"""The rows, a file a group."""
