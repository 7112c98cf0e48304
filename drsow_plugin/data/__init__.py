"""Loads data sets: from files, saved folders and the Hub."""
