"""The caches that are compared, one module each, and their rows."""
