"""Rotary frequencies for contexts longer than those of training: rules, each a function with its own arguments.

A config names one beside its arguments, as `dict(rule="yarn", factor=4.0, trained=2048)`. All in double precision.
Theirs: s -> factor, L -> trained, b -> theta, |D| -> k.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mistake import Mistake


def frequencies(k: int, theta: float, scaling: Mapping[str, Any] | None = None) -> np.ndarray:
  """Returns the radians per position of the k/2 pairs: theta^(-2i/k), changed by a rule if one is named.

  Raises:
    ValueError: the rule is unknown or has other arguments, or an argument or theta is out of its range.
  """
  return _plain(k, theta) if scaling is None else _apply(scaling, k, theta)[0]


def amplitude(scaling: Mapping[str, Any] | None) -> float:
  """Returns the factor that a rule puts on the entries of queries and keys that turn; scores grow by its square.

  Raises:
    ValueError: as `frequencies`.
  """
  return 1.0 if scaling is None else _apply(scaling, 2, 1e4)[1]


def linear(k: int, theta: float, *, factor: float) -> tuple[np.ndarray, float]:
  """Turns a token as if it stood at its position / factor     Chen et al. 2023, arXiv:2306.15595, sec. 2.3."""
  return _plain(k, theta) / factor, 1.0


def ntk(k: int, theta: float, *, factor: float) -> tuple[np.ndarray, float]:
  """Changes the base: the first pair turns as before, the last slower by the factor     arXiv:2309.00071, sec. 3.1."""
  return _plain(k, theta * factor ** (k / max(k - 2, 1))), 1.0


def yarn(
  k: int, theta: float, *, factor: float, trained: int, fast: float = 32, slow: float = 1, mscale: float = 1.0
) -> tuple[np.ndarray, float]:
  """Interpolates pairs that turn fewer than `slow` times in `trained` positions, and keeps those above `fast` times.

  YaRN: Peng et al. 2023, arXiv:2309.00071, secs. 3.2 and 3.4. Between the two is a ramp over the pairs' numbers,
  its ends rounded outwards, as in the authors' code and so in checkpoints (the paper's is one over turns); queries and
  keys grow by 0.1 mscale ln(factor) + 1.
  """
  if not theta > 1:
    raise Mistake(f"scaling: rule 'yarn' with theta={theta}; it must be above 1, so that pairs differ in speed")
  pair = lambda turns: k * math.log(trained / (2 * math.pi * turns)) / (2 * math.log(theta))
  low, high = max(math.floor(pair(fast)), 0), min(math.ceil(pair(slow)), k - 1)
  ramp = np.clip((np.arange(k // 2) - low) / max(high - low, 1e-3), 0, 1)
  return _plain(k, theta) * (ramp / factor + 1 - ramp), 0.1 * mscale * math.log(max(factor, 1)) + 1


RULES: dict[str, Callable[..., tuple[np.ndarray, float]]] = {"linear": linear, "ntk": ntk, "yarn": yarn}


def _plain(k: int, theta: float) -> np.ndarray:
  return theta ** (-np.arange(0, k, 2) / k)


def _apply(scaling: Mapping[str, Any], k: int, theta: float) -> tuple[np.ndarray, float]:
  given = dict(scaling)
  name = given.pop("rule", None)
  if name not in RULES:
    raise Mistake(f"scaling: no rule {name!r}; choose from {list(RULES)}")
  own = [p for p in inspect.signature(RULES[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
  needed = {p.name for p in own if p.default is p.empty}
  if not needed <= given.keys() <= {p.name for p in own}:
    raise Mistake(f"scaling: rule {name!r} takes {[p.name for p in own]} and needs {sorted(needed)}, not {given}")
  if bad := [key for key, value in given.items() if not (isinstance(value, int | float) and value > 0)]:
    raise Mistake(f"scaling: {bad[0]}={given[bad[0]]!r}; it must be a number above 0")
  return RULES[name](k, theta, **given)
