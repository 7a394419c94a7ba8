"""The mixer contract, and the modules made of mixers: blocks, stacks, wrappers, channel mixers and whole models."""

from checkout import warn_of_strangers

warn_of_strangers()
