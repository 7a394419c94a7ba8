"""The grammar of the argument after a config file's colon: `mixer=s5,width=128,stages=((0,1),(500,2))`.

Pairs key=value are separated by commas. A comma inside brackets or quotes belongs to the value. Quotes work as in a
shell: they are taken away and what they hold is text, so `generate.prompt='Dear Sir, '` has a comma and a space at its
end; inside double quotes a backslash stands before a double quote or a backslash that is meant as such. Inside brackets
a value is a Python literal, whose quotes stay. A bracket or quote without its partner is an error.
"""

import ast
import math
from collections.abc import Iterable
from typing import Any

from mistake import Mistake, hint

BRACKETS = {"(": ")", "[": "]", "{": "}"}
QUOTES = "'\""
# brackets inside brackets: Python's own parser gives up on some hundreds
DEEPEST = 32
# characters of a long argument shown on each side of a mistake
SHOWN = 60


def pairs(arg: str | None) -> list[tuple[str, str]]:
  """`"a=1,b=(2,3),c='x,y'"` -> `[("a", "1"), ("b", "(2,3)"), ("c", "'x,y'")]`: values as they are written.

  Raises:
    Mistake: a bracket or a quote has no partner, or a part has no key or no equals sign.
  """
  arg = arg or ""
  commas, _ = outline(arg)
  parts = []
  for start, end in zip([0, *(i + 1 for i in commas)], [*commas, len(arg)]):
    part = arg[start:end].lstrip()
    key, equals, text = part.partition("=")
    if part and not (key.strip() and equals):
      raise Mistake(f"config argument {part!r} is not key=value; separate pairs by commas, e.g. mixer=s5,width=64")
    if part and "" in key.strip().split("."):
      raise Mistake(f"config argument {part!r} has no name before or after a dot; write it as in optimizer.lr=0.1")
    if part:
      parts.append((key.strip(), text))
  return parts


def outline(arg: str) -> tuple[list[int], list[int]]:
  """Positions of the commas that separate pairs, and of the quotes and backslashes that are no part of any value.

  Raises:
    Mistake: a bracket or a quote has no partner.
  """
  commas: list[int] = []
  dropped: list[int] = []
  brackets: list[int] = []
  quote, escaped = -1, False
  for i, char in enumerate(arg):
    if escaped:
      escaped = False
    elif quote >= 0:
      # a Python literal escapes in all its quotes, a shell in double ones
      escaped = char == "\\" and (bool(brackets) or (arg[quote] == '"' and arg[i + 1 : i + 2] in ('"', "\\")))
      ends = char == arg[quote]
      dropped += [i] if (ends or escaped) and not brackets else []
      quote = -1 if ends else quote
    elif char in QUOTES:
      quote = i
      dropped += [] if brackets else [i]
    elif char in BRACKETS:
      brackets.append(i)
      if len(brackets) > DEEPEST:
        raise Mistake(marked(arg, i, f"brackets are nested more than {DEEPEST} deep"))
    elif char in BRACKETS.values():
      if not brackets or BRACKETS[arg[brackets[-1]]] != char:
        opened = f"closes {arg[brackets[-1]]!r} of another kind" if brackets else "closes nothing"
        raise Mistake(marked(arg, i, f"{char!r} {opened}; put text that has brackets in quotes"))
      brackets.pop()
    elif char == "," and not brackets:
      commas.append(i)
  if quote >= 0:
    raise Mistake(marked(arg, quote, f"the quote {arg[quote]} is never closed; put text with a ' in double quotes"))
  if brackets:
    first = brackets[0]
    raise Mistake(marked(arg, first, f"{arg[first]!r} is never closed; put text that has brackets in quotes"))
  return commas, dropped


def marked(arg: str, position: int, reason: str) -> str:
  """Returns the reason, and below it the argument with a caret under the position."""
  start, end = max(0, position - SHOWN), position + SHOWN
  shown = "".join(char if char.isprintable() else " " for char in arg[start:end])
  before, after = "…" * (start > 0), "…" * (end < len(arg))
  return f"config argument: {reason}\n  {before}{shown}{after}\n  {' ' * (len(before) + position - start)}^"


def unquoted(text: str) -> str:
  """Returns the value without the quotes around it or its parts; those inside brackets stay."""
  dropped = set(outline(text)[1])
  return "".join(char for i, char in enumerate(text) if i not in dropped)


def quoted(text: str) -> str:
  """Returns the text so that it is one value of a pair: in double quotes where the grammar would read it otherwise."""
  if not set(text) & {",", *QUOTES, *BRACKETS, *BRACKETS.values()} and text == text.lstrip():
    return text
  return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def take(arg: str | None, key: str, choices: Iterable[str]) -> tuple[str, str]:
  """Returns the value of `key` in `arg`, by default the first choice, and `arg` without it: for configs with variants.

  Raises:
    Mistake: the value is none of the choices.
  """
  choices, given = list(choices), pairs(arg)
  value = unquoted(dict(given).get(key, choices[0]))
  if value not in choices:
    raise Mistake(f"config argument {key}={value!r}{hint(value, choices)}; choose from {choices}")
  return value, ",".join(f"{name}={text}" for name, text in given if name != key)


def convert(key: str, text: str, old: Any) -> Any:
  """`text` as a value of the type the key has.

  Raises:
    Mistake: it is none; the message says what the key wants.
  """
  kind = next((kind for kind in (bool, int, float, tuple, list) if isinstance(old, kind)), str)
  return cast(key, text, kind, note=f"; its default is {old!r}")


def cast(key: str, text: str, kind: type, *, note: str = "") -> Any:
  """`text` as a value of a type: bool, int, float, tuple or list, or else text.

  Raises:
    Mistake: it is none; the message says what the key wants, and the note.
  """
  if kind is bool:
    value = literal(text, key)
    fits, need = isinstance(value, bool) or value in (0, 1), "true or false"
    value = bool(value)
  elif kind in (int, float):
    value = number(text, key)
    fits, need = kind is float or value == int(value), "a whole number"
    value = kind(value)
  elif kind in (tuple, list):
    value = literal(text, key)
    fits, need = isinstance(value, (tuple, list)), "in brackets, e.g. (1,2)"
  else:
    value, fits, need = unquoted(text), True, "text"
  if not fits:
    raise Mistake(f"config argument {key}={text!r} must be {need}{note}")
  return value


def number(text: str, key: str) -> int | float:
  """Returns a finite number, whole where it is written so.

  Raises:
    Mistake: it is none.
  """
  value = literal(text, key)
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    raise Mistake(f"config argument {key}={text!r} must be a number")
  # a whole number of hundreds of digits is finite but no float
  if not math.isfinite(value) if isinstance(value, float) else abs(value) >= 2**63:
    raise Mistake(f"config argument {key}={text!r} must be a finite number below 2^63")
  return value


def literal(text: str, key: str) -> Any:
  """Returns the Python value of `text`, or the text where it is none or is quoted; true and false in any case.

  `None` is Python's; `none` is text, since that is a choice of many fields (`m.activation=none`).

  Raises:
    Mistake: it is in brackets but no literal.
  """
  plain = unquoted(text)
  words = {"true": True, "false": False}
  if plain != text:
    return plain
  if text.strip().lower() in words:
    return words[text.strip().lower()]
  try:
    return ast.literal_eval(text.strip())
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    if text.strip()[:1] in BRACKETS:
      example = "(1,2), ('a',) or {'a':1}"
      raise Mistake(
        f"config argument {key}={text!r} is no Python literal such as {example}; text in brackets needs quotes"
      ) from None
    return text
