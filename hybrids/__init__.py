"""The mixer contract, and what is made of mixers: blocks, stacks, wrappers, channel mixers and whole models."""
