"""Preference benchmarks, one file each."""
