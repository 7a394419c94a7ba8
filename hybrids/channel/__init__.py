"""Channel mixers, which stand between two sequence mixers and read one token at a time."""
