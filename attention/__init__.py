"""Mixers written with queries, keys and values."""
