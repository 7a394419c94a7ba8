"""One file an experiment: `get_config(arg)` returns a locked, complete ConfigDict; base.py has defaults and grammar."""

from checkout import warn_of_strangers

warn_of_strangers()
