"""The cases that `scripts/bench.py` times: one file per suite, each with a function `cases()`."""
