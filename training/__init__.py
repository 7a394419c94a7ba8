"""The parts of a run: optimizer, sharding, state, update, losses, evaluation, checkpoints and metrics."""

from checkout import warn_of_strangers

warn_of_strangers()
