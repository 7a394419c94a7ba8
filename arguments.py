"""The parser of every command line but main.py's: what cannot be right ends the program in one line, with code 2."""

import argparse
from collections.abc import Callable
from typing import NoReturn

from mistake import hint

UNKNOWN = "unrecognized arguments: "


class Parser(argparse.ArgumentParser):
  """A parser that says in one line what is wrong, without the list of all flags, which --help prints."""

  def error(self, message: str) -> NoReturn:
    """Ends the program; a flag that is close to an unknown one is named."""
    close = ""
    if message.startswith(UNKNOWN):
      word = message.removeprefix(UNKNOWN).split()[0].partition("=")[0]
      close = hint(word, self._option_string_actions)
    self.exit(2, f"{self.prog}: {' '.join(message.split())}{close}; --help says what there is\n")


def at_least(least: int) -> Callable[[str], int]:
  """Returns a flag's `type`: a whole number that is not below `least`, and that arrays can have as a size."""

  def number(text: str) -> int:
    try:
      value = int(text)
    except ValueError:
      value = least - 1
    if not least <= value < 2**31:
      raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least {least}, and below 2^31")
    return value

  return number
