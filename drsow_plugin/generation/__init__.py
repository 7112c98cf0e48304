"""Candidates for annotation: responses sampled from a policy model."""
