"""What main.py's loop calls: optimizer, sharding, state, update, losses, evaluation, checkpoints, metrics."""
