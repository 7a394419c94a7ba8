"""S_t = diag(a_t) S_{t-1} + u_t (S_{t-1}^T w_t)^T + k_t v_t^T, y_t = S_t^T q_t in C++ (cpp.cc), built when first used.

Token by token: a CPU multiplies a state in its first-level cache by a decay, adds, and reads it in three operations a
number, about as many as products of chunks need. For the gradient, forward keeps the state before each CHUNK of tokens,
as many numbers as v has where the state has CHUNK rows; backward makes those of a chunk again.
"""

from pathlib import Path

import jax
import jax.numpy as jnp

from kernels import cpp, dispatch, kept_states, op

SOURCE = Path(__file__).with_suffix(".cc")
FORWARD, BACKWARD = cpp.handlers(SOURCE)
CHUNK = 64  # as in the source


def why_not(*args) -> str | None:
  """Returns why this kernel cannot run an op's arguments, of which the last but one is the state."""
  return cpp.why_not(SOURCE, args[-2])


def ssd(q, k, v, log_a, S, reset):
  """Computes `kernels.ssd.reference.ssd`."""
  return _run(q, k, v, jnp.exp(log_a)[..., None], None, None, S, reset)


def gated_linear_attention(q, k, v, log_a, u, S, reset):
  """Computes `kernels.gated_linear_attention.reference.gated_linear_attention`.

  With a bonus, a token reads the state before it: it is the one before that reads with its q.
  """
  a = jnp.exp(log_a)
  if u is None:
    return _run(q, k, v, a, None, None, S, reset)
  y, last = _run(jnp.roll(q, -1, axis=1), k, v, a, None, None, S, reset)
  y = jnp.concatenate([op.read(S, q[:, 0])[:, None], y[:, :-1]], axis=1)
  own = jnp.einsum("bthk,hk,bthk->bth", q, u, k, precision=jax.lax.Precision.HIGHEST)
  return op.cleared(reset, y) + own[..., None] * v, last


def delta_rule(q, k, v, w, u, log_a, S, reset):
  """Computes `kernels.delta_rule.reference.delta_rule`."""
  a = jnp.ones((*v.shape[:3], 1), v.dtype) if log_a is None else jnp.exp(log_a)
  return _run(q, k, v, a, w, -k if u is None else u, S, reset)


def _run(*args):
  rows = "b t h k" if args[4] is not None else "b t g k"
  axes = (rows, rows, "b t h p", "b t h d", "b t h k", "b t h k", "b h k p", "b t")
  return dispatch.shard(_scan, axes, ("b t h p", "b h k p"))(*args)


def _call_forward(q, k, v, a, w, u, S, reset, *, save):
  """Returns all y, the last state, and if `save` the states before each chunk, else none."""
  chunks = -(-v.shape[1] // CHUNK) if save else 0
  shapes = (v.shape, S.shape, (S.shape[0], chunks, *S.shape[1:]))
  in_place = {} if save else {6: 1}
  return cpp.call(FORWARD, shapes, _parts(q, v), in_place)(q, k, v, a, *map(_array, (w, u)), S, cpp.mask(reset))


def _backward(q, k, v, a, w, u, reset, entries, y_bar, last_bar):
  fixes = tuple(map(_array, (w, u)))
  by_part = (_parts(q, v), *q.shape)
  shapes = (by_part, by_part, v.shape, a.shape, *(z.shape for z in fixes), last_bar.shape)
  call = cpp.call(BACKWARD, shapes, _parts(q, v))
  q_bar, k_bar, v_bar, a_bar, w_bar, u_bar, S_bar = call(q, k, v, a, *fixes, cpp.mask(reset), entries, y_bar, last_bar)
  w_bar, u_bar = (None, None) if w is None else (w_bar, u_bar)
  return q_bar.sum(0), k_bar.sum(0), v_bar, a_bar, w_bar, u_bar, S_bar, None


_scan = kept_states.differentiable(_call_forward, _backward, state=6)


def _parts(q, v):
  """Returns into how many parts the heads of a group are cut."""
  b, _, g, _ = q.shape
  return cpp.parts(b * g, v.shape[2] // g)


def _array(z):
  return jnp.zeros((0, 0, 0, 0), jnp.float32) if z is None else z
