"""Decide where shards of rows are scored."""
