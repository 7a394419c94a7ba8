"""State spaces whose dynamics are computed from the input."""
