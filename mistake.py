"""The exception for what a user got wrong, which every folder may raise."""

import difflib
from collections.abc import Iterable


class Mistake(ValueError):
  """A setting, a file or an argument that cannot be right; the message names it, its value, the choices and the fix.

  `main.py` prints it in one line. Every other exception, a ValueError of Python or JAX among them, is a bug of this
  code base and keeps its traceback.
  """


# choices that a message names where none is close to what was written; more are for a listing
MANY = 100


def _close(word: str, choices: Iterable[str], count: int) -> list[str]:
  """Returns the choices that are close to the word, in whichever case: papers write S5, names are s5."""
  by_lower: dict[str, list[str]] = {}
  for choice in choices:
    by_lower.setdefault(choice.lower(), []).append(choice)
  found = difflib.get_close_matches(word.lower(), by_lower, n=count)
  return [choice for lower in found for choice in by_lower[lower]][:count]


def hint(word: str, choices: Iterable[str]) -> str:
  """' (did you mean …?)' where a choice is close to the word, otherwise nothing."""
  close = _close(word, choices, 1)
  return f" (did you mean {close[0]!r}?)" if close else ""


def near(word: str, choices: Iterable[str], kind: str) -> str:
  """Names the few choices that are close to the word and what lists all, or all where none is close."""
  choices = sorted(choices)
  close = _close(word, choices, 3)
  meant = f" (did you mean {', '.join(map(repr, close))}?)" if close else ""
  if not close and len(choices) <= MANY:
    return f"; choose from {', '.join(choices)}"
  return f"{meant}; ./dev run --list {kind} names all {len(choices)}"
