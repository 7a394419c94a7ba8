"""Mixers whose rows lie on several devices: what these tell each other, by the compiled programs.

Run in a process of its own by test_rows_on_a_mesh.py, with names of the table of small mixers:

  JAX_NUM_CPU_DEVICES=2 python -m tests.kernels.rows_on_a_mesh softmax "titans_mac, linear"

It prints a line for each way of each mixer in which devices exchange arrays with entries of all rows.
"""

import re
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding

from hybrids.mixer import build
from tests import mixers
from tests.contract.case import Case
from tests.kernels.compare import QUICK

WIDTH, B, T = 8, 8, 24


def programs(row):
  """Yields the gradient of the parallel form, and where there is a state `prefill` and `step`, each with arguments."""
  module = build(mixers.path(row.partition(",")[0]), width=WIDTH, **mixers.table("SMALL")[row])
  variables, x = Case(module).variables, np.ones((B, T, WIDTH), np.float32)
  side = {key: make(B, T).astype(np.float32) for key, make in mixers.table("SIDE").get(row, {}).items()}
  apply = lambda *given, side, **method: module.apply(*given, side=side or None, **method)
  loss = lambda variables, x, side: jnp.sum(jnp.square(apply(variables, x, side=side)))
  yield "gradient", jax.grad(loss, argnums=(0, 1)), (variables, x, side)
  if module.STATE == "none":
    return
  state = module.init_state(B, T)
  go_on = lambda method: lambda variables, x, state, side: apply(variables, x, state, side=side, method=method)
  yield "prefill", go_on("prefill"), (variables, x, state, side)
  first = jax.tree.map(lambda z: z[:, 0], (x, side))
  yield "step", go_on("step"), (variables, first[0], state, first[1])


def exchanged(run, given, mesh) -> list[str]:
  """Returns the shapes that devices gather, or trade, where each has some of the rows."""
  rows, whole = NamedSharding(mesh, jax.P("data")), NamedSharding(mesh, jax.P())
  place = jax.tree.map(lambda z: jax.device_put(z, rows), given[1:])
  with jax.set_mesh(mesh):
    program = jax.jit(run).lower(jax.device_put(given[0], whole), *place).compile(QUICK).as_text()
  return sorted(set(re.findall(r"= \(?(\w+\[[\d,]*\])[^=]* (?:all-gather|all-to-all)(?:-start)?\(", program)))


def lines(names) -> Iterator[str]:
  axes = "data", "fsdp", "sequence", "tensor"
  mesh = jax.make_mesh((jax.device_count(), 1, 1, 1), axes, axis_types=(AxisType.Auto,) * 4)
  for name in names:
    for way, run, given in programs(name):
      if found := exchanged(run, given, mesh):
        yield f"{name}, {way}: {found}"


if __name__ == "__main__":
  for line in lines(sys.argv[1:]):
    print(line, flush=True)
