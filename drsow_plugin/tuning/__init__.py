"""Trains a policy on labelled pairs, with TRL."""
