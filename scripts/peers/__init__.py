"""Other people's layers and models, as cases for `scripts/bench.py`. None is needed; an absent one is reported."""
