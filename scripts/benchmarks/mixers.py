"""Every mixer, forward and forward+backward, beside the layers of other JAX libraries."""

import jax

from hybrids import mixer
from scripts.benchmarks.case import Case, compiled, with_gradients
from scripts.peers import discretax

SIZES = {"batch": 8, "length": 4096, "width": 128}


def cases() -> list[Case]:
  names = [name for name, path in mixer.available().items() if not path.startswith("hybrids.")]
  return [case for name in names for case in ours(name)] + discretax.cases(**SIZES)


def ours(name: str) -> list[Case]:
  batch, width = SIZES["batch"], SIZES["width"]
  # softmax attention would hold length² scores
  length = SIZES["length"] if name != "softmax" else 1024
  kwargs = {"state": 64} if name in ("s4d", "s5") else {}
  layer = mixer.build(name, width=width, **kwargs)

  def make(gradients: bool):
    x = jax.random.normal(jax.random.key(1), (batch, length, width))
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    fn = lambda variables, x: layer.apply(variables, x)
    return compiled(with_gradients(fn) if gradients else fn, variables, x)

  group = f"{name}, B{batch} L{length} width {width}"
  return [
    Case(f"{group}, forward", f"ours ({name})", lambda: make(gradients=False)),
    Case(f"{group}, forward+backward", f"ours ({name})", lambda: make(gradients=True)),
  ]
