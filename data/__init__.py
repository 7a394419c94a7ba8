"""Tasks: iterators of numpy dictionaries, and the head, loss and sizes a model needs for them. Knows no models."""

from checkout import warn_of_strangers

warn_of_strangers()
