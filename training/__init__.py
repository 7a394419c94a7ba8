"""What main.py's loop calls: optimizer, sharding, state, update, losses, evaluation, checkpoints, metrics."""

from checkout import warn_of_strangers

warn_of_strangers()
