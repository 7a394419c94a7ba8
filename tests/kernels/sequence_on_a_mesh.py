"""Ops, mixers and models whose tokens lie on four devices, against one: run in a process of its own by
test_sequence_parallel.py, with the names of what to run.

  JAX_NUM_CPU_DEVICES=4 python -m tests.kernels.sequence_on_a_mesh op:ssd mixer:mamba
"""

import re
import sys

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding

from hybrids.mixer import build
from kernels.attention import attention
from kernels.long_conv import long_conv
from kernels.max_scan import max_scan
from tests import mixers
from tests.hybrids.filled import filled
from tests.kernels.compare import QUICK, assert_close, cotangents, differentiated, masks
from tests.kernels.ops import OPS

T = 48  # tokens; twelve on each device
WIDTH = 16


def draw(*shape):
  return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def attended(heads, keys, **rules):
  """Returns attention of packed documents, with as many heads and heads of keys."""
  document = np.cumsum(masks(T)["reset"], axis=1).astype(np.int32)
  op = lambda q, k, v: (attention(q, k, v, q_segment=document, k_segment=document, **rules),)
  return op, (draw(2, T, heads, 4), draw(2, T, keys, 4), draw(2, T, keys, 4)), False


def of_op(name):
  """Returns an op, arguments for it, and whether it takes masks."""
  if name in OPS:
    return OPS[name].run, tuple(OPS[name].draw(T).values()), True
  maxima = lambda log_a, x, m, **where: (max_scan(log_a, x, m, **where),)
  convolved = lambda u, k, **where: (long_conv(u, k, **where),)
  return {
    "max_scan": lambda: (maxima, (-abs(draw(2, T, 4)), draw(2, T, 4), draw(2, 4)), True),
    "long_conv": lambda: (convolved, (draw(2, T, 8), draw(8, T)), True),
    "attention": lambda: attended(8, 4),
    "attention, one head of keys": lambda: attended(4, 1),
    "attention, no heads to divide": lambda: attended(3, 1, window=7),
    "attention, slopes": lambda: attended(4, 4, slopes=(0.1, 0.2, 0.3, 0.4)),
  }[name]()


def of_mixer(row):
  """Returns a mixer of the table of small ones, with its parameters as arguments."""
  name, _, _ = row.partition(",")
  module = build(name, width=WIDTH, **mixers.table("SMALL")[row])
  x = draw(2, T, WIDTH)
  return lambda x, variables, **where: (module.apply(variables, x, **where),), (x, filled(module, x)), True


def compare(kind, name, mesh):
  """Holds values and gradients to those of one device, and prints what a device gathers of all tokens."""
  op, given, masked = {"op": of_op, "mixer": of_mixer}[kind](name)
  where = {**masks(T), "lengths": np.array([T - 1, 17])} if masked else {}
  flat, tree = jax.tree.flatten(given)
  run = differentiated(lambda *leaves, **where: op(*jax.tree.unflatten(tree, leaves), **where))
  bars = cotangents(jax.eval_shape(lambda: op(*given, **where)), where)
  want = run(tuple(flat), bars, where)
  by_time = NamedSharding(mesh, jax.P(None, "sequence"))
  put = lambda z: jax.device_put(z, by_time if z.ndim > 1 and z.shape[1] == T else NamedSharding(mesh, jax.P()))
  with jax.set_mesh(mesh):
    compiled = run.lower(*jax.tree.map(put, (tuple(flat), bars, where))).compile(QUICK)
    got = compiled(*jax.tree.map(put, (tuple(flat), bars, where)))
  assert_close(got, want, 5e-5)
  print(f"{kind}:{name} equal; gathers {gathered(compiled.as_text())}", flush=True)


def gathered(program):
  """Returns the shapes of float arrays of all tokens that a device has from the others."""
  shapes = re.findall(r"= [fc]\d+\[([\d,]*)\][^=]* all-gather\(", program)
  return sorted({shape for shape in shapes if str(T) in shape.split(",")})


if __name__ == "__main__":
  axes = "data", "fsdp", "sequence", "tensor"
  devices = jax.make_mesh((1, 1, 4, 1), axes, axis_types=(AxisType.Auto,) * 4)
  for argument in sys.argv[1:]:
    compare(*argument.split(":"), devices)
