"""Numbers computed by official implementations, for tests/test_golden.py; see record.py."""
