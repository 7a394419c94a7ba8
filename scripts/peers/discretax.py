"""S5 and S4D of `discretax` (JAX, Equinox; Python 3.12 or newer): the layers alone, without a gate, as that library defines them."""

import importlib

import jax

from scripts.benchmarks.case import Case, Missing, Timed, compiled, with_gradients


def cases(*, batch: int, length: int, width: int, state: int = 64) -> list[Case]:
  rows = []
  for name, path in (("s5", "s5.S5SequenceMixer"), ("s4d", "s4d.S4DSequenceMixer")):
    group = f"{name}, B{batch} L{length} width {width}"
    for mode in ("forward", "forward+backward"):
      sizes = (path, mode, batch, length, width, state)
      rows.append(Case(f"{group}, {mode}", f"discretax {path}", lambda sizes=sizes: layer(*sizes)))
  return rows


def layer(path: str, mode: str, batch: int, length: int, width: int, state: int) -> Timed:
  module, attr = path.split(".")
  try:
    import equinox

    cls = getattr(importlib.import_module(f"discretax.sequence_mixers.{module}"), attr)
  except ImportError as e:
    raise Missing(f"not installed here ({e})") from e
  mixer = cls(width, key=jax.random.key(0), state_dim=state)
  params, static = equinox.partition(mixer, equinox.is_inexact_array)
  x = jax.random.normal(jax.random.key(1), (batch, length, width))

  def run(params, x):
    return jax.vmap(lambda x: equinox.combine(params, static)(x, key=jax.random.key(2)))(x)

  return compiled(with_gradients(run) if mode != "forward" else run, params, x)
