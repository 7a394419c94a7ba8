"""Ops and mixers whose tokens lie on several devices, against one: run in a process of its own by
test_sequence_parallel.py, with the number of tokens and the names of what to run.

  JAX_NUM_CPU_DEVICES=4 python -m tests.kernels.sequence_on_a_mesh 48 op:ssd mixer:mamba

It prints a line for each, with the shapes of the arrays of all tokens that a device gathers, and ends with code 1 where
one differs.
"""

import re
import sys
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding

from hybrids.channel.routing import route
from hybrids.head.cross_entropy import by_chunks
from hybrids.mixer import build
from kernels.attention import attention
from kernels.long_conv import long_conv
from kernels.max_scan import max_scan
from tests import mixers
from tests.contract.case import Case
from tests.kernels.compare import QUICK, cotangents, differentiated, masks
from tests.kernels.ops import OPS

WIDTH = 8  # what the tables of mixers are made for


def draw(*shape):
  return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def attended(t, heads, keys, **rules):
  """Returns attention of packed documents, with as many heads and heads of keys."""
  document = np.cumsum(masks(t)["reset"], axis=1).astype(np.int32)
  op = lambda q, k, v: (attention(q, k, v, q_segment=document, k_segment=document, **rules),)
  return op, (draw(2, t, heads, 4), draw(2, t, keys, 4), draw(2, t, keys, 4)), False


def layer_of_attention(x, kernel):
  """Returns attention whose heads are made on the spot: each device must make those of its own tokens."""
  q = jnp.einsum("btd,dhk->bthk", x, kernel)
  return (attention(q, q, q),)


def loss(y, kernel):
  ones = jnp.ones(y.shape[:2])
  return by_chunks(lambda y: y @ kernel, y, jnp.zeros_like(ones, jnp.int32), ones, chunk=16)[0:1]


def weights_of_experts(logits):
  rules = dict(scores="softmax", top_k=2, groups=4, top_groups=2, renormalize=True, renormalize_eps=0.0, scale=1.0)
  return (route(logits, None, **rules).weights,)


def of_op(name, t):
  """Returns an op, arguments for it, and whether it takes masks."""
  if name in OPS:
    return OPS[name].run, tuple(OPS[name].draw(t).values()), True
  maxima = lambda log_a, x, m, **where: (max_scan(log_a, x, m, **where),)
  convolved = lambda u, k, **where: (long_conv(u, k, **where),)
  return {
    "max_scan": lambda: (maxima, (-abs(draw(2, t, 4)), draw(2, t, 4), draw(2, 4)), True),
    # which reads some fields of the system alone
    "lti, definition": lambda: (partial(OPS["lti"].run, impl="reference"), tuple(OPS["lti"].draw(t).values()), True),
    "long_conv": lambda: (convolved, (draw(2, t, 8), draw(8, t)), True),
    "attention": lambda: attended(t, 8, 4),
    "layer of attention": lambda: (layer_of_attention, (draw(2, t, 16), draw(16, 8, 2)), False),
    "loss by chunks": lambda: (loss, (draw(2, t, 8), draw(8, 16)), False),
    "experts": lambda: (weights_of_experts, (draw(2, t, 8),), False),
    "attention, two heads of keys": lambda: attended(t, 8, 2),
    "attention, one head of keys": lambda: attended(t, 4, 1),
    "attention, no heads to divide": lambda: attended(t, 3, 1, window=7),
    "attention, slopes": lambda: attended(t, 4, 4, slopes=(0.1, 0.2, 0.3, 0.4)),
  }[name]()


def of_mixer(row, t):
  """Returns a mixer of the table of small ones, with its parameters and side inputs as arguments."""
  name, _, _ = row.partition(",")
  module = build(mixers.path(name), width=WIDTH, **mixers.table("SMALL")[row])
  x = draw(2, t, WIDTH)
  side = {key: make(2, t).astype(np.float32) for key, make in mixers.table("SIDE").get(row, {}).items()}
  op = lambda x, side, variables, **where: (module.apply(variables, x, side=side or None, **where),)
  return op, (x, side, Case(module).variables), True


def compare(kind, name, t, mesh):
  """Holds values and gradients to those of one device, and returns what a device gathers of all tokens."""
  op, given, masked = {"op": of_op, "mixer": of_mixer}[kind](name, t)
  where = {**masks(t), "lengths": np.array([t - 1, 17])} if masked else {}
  flat, tree = jax.tree.flatten(given)
  run = differentiated(lambda *leaves, **where: op(*jax.tree.unflatten(tree, leaves), **where))
  bars = cotangents(jax.eval_shape(lambda: op(*given, **where)), where)
  want = run(tuple(flat), bars, where)
  assert all(np.isfinite(z).all() for z in jax.tree.leaves(want)), "one device has numbers that are not finite"
  by_time = NamedSharding(mesh, jax.P(None, "sequence"))
  put = lambda z: jax.device_put(z, by_time if z.ndim > 1 and z.shape[1] == t else NamedSharding(mesh, jax.P()))
  with jax.set_mesh(mesh):
    compiled = run.lower(*jax.tree.map(put, (tuple(flat), bars, where))).compile(QUICK)
    got = compiled(*jax.tree.map(put, (tuple(flat), bars, where)))
  assert_equal(got, want)
  return gathered(compiled.as_text(), t)


def assert_equal(got, want):
  """Holds each array to within 5e-5 of its largest entry.

  Where a gradient is small because large ones cancel, it has their rounding errors: two units of the largest one's last
  digit. In float64 such a one, of the bias of the large mLSTM's input gate, differed by 3e-14.
  """
  rounding = 2 * np.finfo(np.float32).eps * max(np.abs(z).max(initial=0) for z in jax.tree.leaves(want))
  for (path, g), w in zip(jax.tree.leaves_with_path(got), jax.tree.leaves(want), strict=True):
    error, size = np.abs(np.asarray(g) - w).max(initial=0), np.abs(w).max(initial=0)
    assert error <= 5e-5 * size + rounding, f"{jax.tree_util.keystr(path)}: off by {error} where the largest is {size}"


def gathered(program, t):
  """Returns the shapes of float arrays of all tokens that a device has from the others."""
  shapes = re.findall(r"= [fc]\d+\[([\d,]*)\][^=]* all-gather\(", program)
  return sorted({shape for shape in shapes if str(t) in shape.split(",")})


def lines(t, names) -> Iterator[tuple[str, bool]]:
  """Yields a line for each name, and whether it is equal."""
  axes = "data", "fsdp", "sequence", "tensor"
  mesh = jax.make_mesh((1, 1, jax.device_count(), 1), axes, axis_types=(AxisType.Auto,) * 4)
  for name in names:
    try:
      yield f"{name} equal; gathers {compare(*name.split(':'), t, mesh)}", True
    except AssertionError as difference:
      yield f"{name} differs: {' '.join(str(difference).split())}", False


if __name__ == "__main__":
  equal = True
  for line, same in lines(int(sys.argv[1]), sys.argv[2:]):
    print(line, flush=True)
    equal &= same
  sys.exit(not equal)
