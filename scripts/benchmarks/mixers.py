"""Every mixer, forward and forward+backward, beside the layers of other JAX libraries."""

from typing import Any

import jax

from hybrids import mixer
from scripts.benchmarks.case import Case, compiled, gradients
from scripts.peers import discretax

BATCH, WIDTH, STATE = 8, 128, 64
# softmax attention holds length² scores
LENGTHS = {"softmax": 1024}
# the peers' S5 and S4D are the state space alone: what follows it is another layer there
CORES = {"s4d": {"state": STATE, "activation": "none"}, "s5": {"state": STATE, "activation": "none"}}


def cases() -> list[Case]:
  """Every mixer whole, and those with a peer without what the peer leaves out."""
  names = [name for name, path in mixer.available().items() if path.split(".")[0] in ("ssm", "attention")]
  rows = [case for name in names for case in ours(name, name, LENGTHS.get(name, 4096))]
  for name, fields in CORES.items():
    group = f"{name} without its gate"
    rows += ours(name, group, 4096, **fields) + discretax.cases(name, group, size(4096), state=STATE)
  return rows


def size(length: int) -> tuple[int, int, int]:
  return BATCH, length, WIDTH


def ours(name: str, label: str, length: int, **fields: Any) -> list[Case]:
  """Forward, and forward+backward with respect to parameters and input."""
  layer = mixer.build(name, width=WIDTH, **fields)

  def make(measure):
    x = jax.random.normal(jax.random.key(1), size(length))
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    fn = lambda variables, x: layer.apply(variables, x)
    return measure(fn, variables, x)

  group = f"{label}, B{BATCH} L{length} width {WIDTH}"
  return [
    Case(f"{group}, forward", f"ours ({name})", lambda: make(compiled)),
    Case(f"{group}, forward+backward", f"ours ({name})", lambda: make(gradients)),
  ]
