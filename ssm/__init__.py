"""Mixers written as a state space or another recurrence."""
