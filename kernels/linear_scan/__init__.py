"""h_t = a_t * h_{t-1} + x_t, elementwise: the recurrence of S5, LRU, RG-LRU and their kin."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from kernels import dispatch, inputs, op, sequence_parallel
from kernels.linear_scan import associative, cpp, reference, xla

IMPLS: dispatch.Impls = {
  "cpp": (cpp.linear_scan, cpp.why_not),
  "xla": (xla.linear_scan, dispatch.always),
  "pallas_gpu": dispatch.imported("kernels.linear_scan.pallas_gpu", "linear_scan"),
  "pallas_tpu": dispatch.imported("kernels.linear_scan.pallas_tpu", "linear_scan"),
  "associative": (associative.linear_scan, dispatch.always),
  "reference": (reference.linear_scan, dispatch.always),
}


def _transition(a, x, h, reset, lengths):
  T = jnp.broadcast_to(jax.lax.integer_pow(a, x.shape[1]) if a.ndim == 1 else a.prod(axis=1), h.shape)
  return T if reset is None else op.cleared(reset.any(axis=1), T)


def _ended(form, a, x, h, reset, lengths):
  """Takes the state at each row's end: a decay that all tokens share goes on at padding. But every state is an output.

  Returns:
    All y, and that state.
  """
  y, last = form(a, x, h, reset)
  if lengths is not None:
    end = jnp.maximum(lengths - 1, 0)[:, None, None]
    last = jnp.where((lengths > 0)[:, None], jnp.take_along_axis(y, end, axis=1)[:, 0], h)
  return y, last


def linear_scan(
  a: Inexact[Array, "b t n"] | Inexact[Array, "n"],
  x: Inexact[Array, "b t n"],
  h: Inexact[Array, "b n"],
  *,
  reset: inputs.Reset = None,
  lengths: inputs.Lengths = None,
  impl: str = "auto",
) -> tuple[Inexact[Array, "b t n"], Inexact[Array, "b n"]]:
  """y_t = h_t = a_t * h_{t-1} + x_t; returns all y and the state after the last token.

  Real or complex; y has the dtype of x, or a complex one if a or h has.

  Args:
    a: the decay, one per token or one for all tokens (never broadcast over time then).
    h, reset, lengths, impl: as in all ops, see `kernels`.
  """
  dtype, where = inputs.compute_dtype(a, x, h), op.rows(x.shape[1], reset, lengths)
  y_dtype = dtype if jnp.issubdtype(dtype, jnp.complexfloating) else x.dtype
  (x,) = where.fill(x)
  a = where.fill(a)[0] if a.ndim == 3 else a
  a, x, h = op.cast(dtype, a, x, h)
  axes = "e" if a.ndim == 1 else "b t e", "b t e", "b e", "b t", "b"
  divided = sequence_parallel.Over(axes, "b t e", 2, sequence_parallel.Linear(_transition), lengths=4)
  over = lambda form, *args: divided(functools.partial(_ended, form), *args, where.lengths)
  run = functools.partial(op.run, "linear_scan", IMPLS, impl, (a, x, h, where.reset), where)
  y, last = run(out=x, state=h, one_token=reference.linear_scan, over=over)
  return y.astype(y_dtype), last
