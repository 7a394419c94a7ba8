"""Fields of mixers whose values are names from a list."""

from collections.abc import Collection
from typing import Any

from mistake import Mistake


def one_of(module: Any, **choices: Collection[Any]) -> None:
  """Refuses names that are not in the list: `one_of(self, activation=ACTIVATIONS)`."""
  for field, known in choices.items():
    value = getattr(module, field)
    if value not in known:
      raise Mistake(f"{type(module).__name__}: {field}={value!r}; choose from {list(known)}")
