"""Tasks: iterators of numpy dictionaries, and the head, loss and sizes a model needs for them. Knows no models."""
