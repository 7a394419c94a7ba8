"""Numbers computed by official implementations, for tests/golden/; see record.py and README.md."""
