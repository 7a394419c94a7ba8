"""S5 and S4D of `discretax` (JAX, Equinox; Python 3.12 or newer): the state spaces alone, as defined there."""

import functools
import importlib

import jax

from scripts.benchmarks.case import Case, Missing, Timed, compiled, gradients
from scripts.peers.own_process import own_process

CLASSES = {"s4d": "S4DSequenceMixer", "s5": "S5SequenceMixer"}


def cases(name: str, label: str, size: tuple[int, int, int], *, state: int) -> list[Case]:
  """One of its layers at a size (batch, length, width)."""
  batch, length, width = size
  group = f"{label}, B{batch} L{length} width {width}"
  return [
    Case(
      f"{group}, {mode}",
      f"discretax {CLASSES[name]}",
      functools.partial(own_process, "scripts.peers.discretax:layer", name=name, mode=mode, size=size, state=state),
    )
    for mode in ("forward", "forward+backward")
  ]


def layer(*, name: str, mode: str, size: tuple[int, int, int], state: int) -> Timed:
  """The layer compiled, vmapped over the batch."""
  try:
    import equinox

    cls = getattr(importlib.import_module(f"discretax.sequence_mixers.{name}"), CLASSES[name])
  except ImportError as e:
    raise Missing(f"not installed here ({e})") from e
  mixer = cls(size[-1], key=jax.random.key(0), state_dim=state)
  params, static = equinox.partition(mixer, equinox.is_inexact_array)
  x = jax.random.normal(jax.random.key(1), size)

  def run(params, x):
    return jax.vmap(lambda x: equinox.combine(params, static)(x, key=jax.random.key(2)))(x)

  return (compiled if mode == "forward" else gradients)(run, params, x)
