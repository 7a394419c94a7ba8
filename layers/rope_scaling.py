"""Rotary frequencies for contexts longer than those of training: rules, each a function with its own arguments.

A config names one beside its arguments, as `dict(rule="yarn", factor=4.0, trained=2048)`. All in double precision.
Theirs: s -> factor, L -> trained, b -> theta, |D| -> k; in Hugging Face's configs original_max_position_embeddings ->
trained, beta_fast and beta_slow -> fast and slow, attention_factor -> amplitude.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from flax.core import FrozenDict

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
  return 1.0 if scaling is None else _apply(scaling, 2 * len(scaling.get("divisors", (1,))), 1e4)[1]


def fixed(scaling: Mapping[str, Any] | None) -> FrozenDict | None:
  """Returns the rule and its arguments as a module can keep them: hashable."""
  if scaling is None:
    return None
  return FrozenDict({key: tuple(value) if isinstance(value, list) else value for key, value in scaling.items()})


def linear(k: int, theta: float, *, factor: float) -> tuple[np.ndarray, float]:
  """Turns a token as if it stood at its position / factor     Chen et al. 2023, arXiv:2306.15595, sec. 2.3."""
  return _plain(k, theta) / factor, 1.0


def ntk(k: int, theta: float, *, factor: float) -> tuple[np.ndarray, float]:
  """Changes the base: the first pair turns as before, the last slower by the factor     arXiv:2309.00071, sec. 3.1."""
  return _plain(k, theta * factor ** (k / max(k - 2, 1))), 1.0


def dynamic(k: int, theta: float, *, factor: float, trained: int, length: int) -> tuple[np.ndarray, float]:
  """Changes the base as `ntk` does, by what a context of `length` tokens needs; up to `trained` nothing changes.

  The factor is factor length / trained - (factor - 1), as in Hugging Face's configs, whose code recomputes it while a
  text grows: keys in its cache then have other bases than newer ones. Here a model has one length.
  """
  return ntk(k, theta, factor=max(factor * length / trained - (factor - 1), 1.0))


def proportional(k: int, theta: float, *, share: float, factor: float = 1.0) -> tuple[np.ndarray, float]:
  """Turns the first `share` of the pairs at the speeds they have in a whole head, and the others not at all (LFM3).

  A share of `layers.positions.rope` gives the pairs that turn all speeds of a head instead.
  """
  turning = np.arange(k // 2) < int(share * k // 2)
  return np.where(turning, _plain(k, theta) / factor, 0.0), 1.0


def llama3(
  k: int, theta: float, *, factor: float, trained: int, low: float = 1.0, high: float = 4.0
) -> tuple[np.ndarray, float]:
  """Interpolates pairs that turn fewer than `low` times in `trained` positions, and keeps those above `high` times.

  Between the two the share that is kept rises with the number of turns (Llama Team 2024, arXiv:2407.21783, whose code
  calls them low_freq_factor and high_freq_factor).
  """
  if not low < high:
    raise Mistake(f"scaling: rule 'llama3' with low={low}, high={high}; it needs low < high")
  turns = trained * _plain(k, theta) / (2 * math.pi)
  share = np.clip((turns - low) / (high - low), 0, 1)
  return _plain(k, theta) * (share + (1 - share) / factor), 1.0


def longrope(
  k: int, theta: float, *, divisors: Sequence[float], factor: float, trained: int, amplitude: float | None = None
) -> tuple[np.ndarray, float]:
  """Divides the speed of each pair by a number of its own     Ding et al. 2024, arXiv:2402.13753.

  Queries and keys grow by sqrt(1 + ln(factor) / ln(trained)), unless the amplitude is given. Checkpoints have two lists
  of divisors, short_factor for texts of at most `trained` tokens and long_factor for longer ones; a model has one.
  """
  if len(divisors) != k // 2:
    raise Mistake(f"scaling: rule 'longrope' has {len(divisors)} divisors for {k // 2} pairs; it needs one for each")
  grown = math.sqrt(1 + math.log(max(factor, 1)) / math.log(trained)) if amplitude is None else amplitude
  return _plain(k, theta) / np.asarray(divisors), grown


def yarn(
  k: int,
  theta: float,
  *,
  factor: float,
  trained: int,
  fast: float = 32,
  slow: float = 1,
  mscale: float = 1.0,
  mscale_all_dim: float = 0.0,
  amplitude: float | None = None,
) -> tuple[np.ndarray, float]:
  """Interpolates pairs that turn fewer than `slow` times in `trained` positions, and keeps those above `fast` times.

  YaRN: Peng et al. 2023, arXiv:2309.00071, secs. 3.2 and 3.4. Between the two is a ramp over the pairs' numbers,
  its ends rounded outwards, as in the authors' code and so in checkpoints (the paper's is one over turns); queries and
  keys grow by 0.1 mscale ln(factor) + 1, over the same with mscale_all_dim, unless the amplitude is given.
  """
  if not theta > 1:
    raise Mistake(f"scaling: rule 'yarn' with theta={theta}; it must be above 1, so that pairs differ in speed")
  pair = lambda turns: k * math.log(trained / (2 * math.pi * turns)) / (2 * math.log(theta))
  low, high = max(math.floor(pair(fast)), 0), min(math.ceil(pair(slow)), k - 1)
  ramp = np.clip((np.arange(k // 2) - low) / max(high - low, 1e-3), 0, 1)
  grow = lambda scale: 0.1 * scale * math.log(max(factor, 1)) + 1
  grown = grow(mscale) / grow(mscale_all_dim) if amplitude is None else amplitude
  return _plain(k, theta) * (ramp / factor + 1 - ramp), grown


RULES: dict[str, Callable[..., tuple[np.ndarray, float]]] = {
  rule.__name__: rule for rule in (linear, ntk, dynamic, proportional, llama3, longrope, yarn)
}


def _plain(k: int, theta: float) -> np.ndarray:
  return theta ** (-np.arange(0, k, 2) / k)


def _apply(scaling: Mapping[str, Any], k: int, theta: float) -> tuple[np.ndarray, float]:
  arguments = dict(scaling)
  name = arguments.pop("rule", None)
  if name not in RULES:
    raise Mistake(f"scaling: no rule {name!r}; choose from {list(RULES)}")
  own = [p for p in inspect.signature(RULES[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
  needed = {p.name for p in own if p.default is p.empty}
  if not needed <= arguments.keys() <= {p.name for p in own}:
    raise Mistake(f"scaling: rule {name!r} takes {[p.name for p in own]} and needs {sorted(needed)}, not {arguments}")
  lists = {key: value for key, value in arguments.items() if key == "divisors" and isinstance(value, list | tuple)}
  positive = lambda value: isinstance(value, int | float) and value > 0
  if bad := [key for key, value in arguments.items() if not all(map(positive, lists.get(key, [value])))]:
    raise Mistake(f"scaling: {bad[0]}={arguments[bad[0]]!r}; it must be {'numbers' if lists else 'a number'} above 0")
  return RULES[name](k, theta, **arguments)
