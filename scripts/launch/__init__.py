"""Submits a run of main.py to a cluster, or prints what would be submitted."""
