"""Which domain a prompt belongs to, and what the models read before it."""
