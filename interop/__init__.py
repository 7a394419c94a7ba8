"""Checkpoints of other projects, in and out: `interop.hf` reads and writes folders of the Hugging Face world."""
