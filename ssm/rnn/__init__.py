"""Recurrent networks: cells that run token after token, and one that need not."""
