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
from kernels.kept_states import named

SOURCE = Path(__file__).with_suffix(".cc")
FORWARD, BACKWARD = cpp.handlers(SOURCE)
TOGETHER = 256  # queries of a head that a thread takes at a time, as in the source
# of queries, keys, values; of positions, of segments, and of which tokens are finite, each for queries and keys; slopes
AXES = ("b t h k", "b s g k", "b s g p", *("b t", "b s") * 3, "h")


def why_not(q, k, v, *_, weights, decays, **__) -> str | None:
  """Returns why this kernel cannot run these arguments, or None."""
  reasons = {
    f"it has no weights {weights!r}": weights != "softmax",
    "it has no decays": decays is not None,
    "it needs keys": k.shape[1] == 0,
  }
  return next((reason for reason, applies in reasons.items() if applies), None) or cpp.why_not(SOURCE, q, k, v)


def attention(q, k, v, q_position, k_position, q_segment, k_segment, *, mask, window, scale, softcap, slopes, **_):
  """Looks for tokens that are not finite, which the kernel then keeps from what does not see them."""
  at = places(q, k, q_position, k_position)
  segments = (None, None) if q_segment is None or k_segment is None else (q_segment, k_segment)
  slopes = None if slopes is None else jnp.asarray(slopes, jnp.float32)
  rules = (mask == "causal", window or 0, float(scale), float(softcap or 0))
  run = dispatch.shard(functools.partial(_attend, rules), AXES, ("b t h p",))
  (y,) = run(q, k, v, *at, *segments, inputs.finite(q), inputs.finite(k, v), slopes)
  return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(rules, q, k, v, *places):
  """Returns all y alone, in a tuple."""
  return _forward(rules, q, k, v, *places)[0]


def _forward(rules, q, k, v, *places):
  (b, t, h, _), p = q.shape, v.shape[3]
  y, levels = named(_call(FORWARD, ((b, t, h, p), (b, h, t)), 1, rules)(q, k, v, *_arrays(places)))
  return (y,), (q, k, v, places, y, levels)


def _backward(rules, saved, cotangents):
  q, k, v, places, y, levels = saved
  parts = _parts(q, k)
  call = _call(BACKWARD, (q.shape, (parts, *k.shape), (parts, *v.shape)), parts, rules)
  q_bar, k_bar, v_bar = call(q, k, v, *_arrays(places), y, levels, *cotangents)
  return q_bar, k_bar.sum(0), v_bar.sum(0), *(None for _ in places)


_attend.defvjp(_forward, _backward)


def _call(name, shapes, parts, rules):
  causal, window, scale, softcap = rules
  settings = dict(
    causal=np.bool_(causal), window=np.int64(window), scale=np.float32(scale), softcap=np.float32(softcap)
  )
  return cpp.call(name, shapes, parts, **settings)


def _arrays(places):
  """Returns the places as the handlers take them: integers of 32 bits, and empty arrays instead of None."""
  *where, q_finite, k_finite, slopes = places
  where = (jnp.zeros((0, 0), jnp.int32) if z is None else z.astype(jnp.int32) for z in where)
  return *where, q_finite, k_finite, jnp.zeros(0, jnp.float32) if slopes is None else slopes


def _parts(q, k):
  """Returns into how many parts the queries of a group are cut backward, so that every core has some."""
  units, cores = max(1, k.shape[0] * k.shape[2]), os.cpu_count() or 1
  return 1 if units % cores == 0 else min(math.ceil(2 * cores / units), math.ceil(q.shape[1] / TOGETHER))
