"""Channel mixers: what stands between two sequence mixers and sees one token at a time."""
