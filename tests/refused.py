"""One call that is refused, as one line of a test."""

import pytest


def refused(message, call, /, *args, error=ValueError, **kwargs):
  """Asserts that the call raises an error whose text has this pattern."""
  with pytest.raises(error, match=message):
    call(*args, **kwargs)
