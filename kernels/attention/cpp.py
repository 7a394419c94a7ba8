"""`attention` on CPUs in C++ (cpp.cc), built when first used: values and gradients in float32, scores never in memory.

For the gradient, forward keeps y and the logarithm of each query's sum of exponentials.
"""

import functools
import math
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from kernels import cpp, dispatch, inputs
from kernels.attention.visible import places

SOURCE = Path(__file__).with_suffix(".cc")
FORWARD, BACKWARD = cpp.handlers(SOURCE)
# of queries, keys, values, places and segments of both, which keys are finite, and slopes
AXES = ("b t h k", "b s g k", "b s g p", "b t", "b s", "b t", "b s", "b s", "h")


def why_not(q, k, v, *_, weights, decays, **__) -> str | None:
  """Returns why this kernel cannot run these arguments, or None."""
  reasons = {
    f"it has no weights {weights!r}": weights != "softmax",
    "it has no decays": decays is not None,
    "it needs keys": k.shape[1] == 0,
  }
  return next((reason for reason, applies in reasons.items() if applies), None) or cpp.why_not(SOURCE, q, k, v)


def attention(q, k, v, q_position, k_position, q_segment, k_segment, *, mask, window, scale, softcap, slopes, **_):
  """Replaces what is not finite by zeros, and then says which queries saw it, or are it."""
  q_position, k_position = places(q, k, q_position, k_position)
  # a weight of 0 times a value that is not finite would be NaN, as would be a gradient
  q_finite, finite = inputs.finite(q), inputs.finite(k, v)
  (q,), (k, v) = inputs.blank(q_finite, q), inputs.blank(finite, k, v)
  if q_segment is None or k_segment is None:
    q_segment = k_segment = None
  slopes = None if slopes is None else jnp.asarray(slopes, jnp.float32)
  rules = (mask == "causal", window or 0, float(scale), float(softcap or 0))
  run = dispatch.shard(functools.partial(_attend, rules), AXES, ("b t h p", "b t"))
  y, spoilt = run(q, k, v, q_position, k_position, q_segment, k_segment, finite, slopes)
  return inputs.where(~q_finite | (spoilt > 0), jnp.nan, y)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(rules, q, k, v, *places):
  """Returns all y, and which queries see a key that is not finite."""
  return _forward(rules, q, k, v, *places)[0]


def _forward(rules, q, k, v, *places):
  (b, t, h, _), p = q.shape, v.shape[3]
  y, spoilt, levels = _call(FORWARD, ((b, t, h, p), (b, t), (b, h, t)), 1, rules)(q, k, v, *_arrays(places))
  return (y, spoilt), (q, k, v, places, y, levels)


def _backward(rules, saved, cotangents):
  q, k, v, at, y, levels = saved
  y_bar, _ = cotangents
  parts = _parts(q, k)
  call = _call(BACKWARD, (q.shape, (parts, *k.shape), (parts, *v.shape)), parts, rules)
  q_bar, k_bar, v_bar = call(q, k, v, *_arrays(at), y, levels, y_bar)
  return q_bar, k_bar.sum(0), v_bar.sum(0), *(None for _ in at)


_attend.defvjp(_forward, _backward)


def _call(name, shapes, parts, rules):
  causal, window, scale, softcap = rules
  settings = dict(
    causal=np.bool_(causal), window=np.int64(window), scale=np.float32(scale), softcap=np.float32(softcap)
  )
  return cpp.call(name, shapes, parts, **settings)


def _arrays(places):
  """Returns the places as the handlers take them: integers of 32 bits, and empty arrays instead of None."""
  *where, finite, slopes = places
  where = (jnp.zeros((0, 0), jnp.int32) if z is None else z.astype(jnp.int32) for z in where)
  return *where, finite, jnp.zeros(0, jnp.float32) if slopes is None else slopes


def _parts(q, k):
  """Returns into how many parts the queries of a group are cut backward, so that every core has some."""
  units, cores = max(1, k.shape[0] * k.shape[2]), os.cpu_count() or 1
  return 1 if units % cores == 0 else min(math.ceil(2 * cores / units), math.ceil(q.shape[1] / 64))
