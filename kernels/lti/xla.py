"""`lti` chunk by chunk: of all states only those between chunks are ever written down.

Within a chunk the taps are added up lag by lag (`lags`), which masks documents at no cost; or, without documents, they
are a matrix product, too (`products`), which suits accelerators. What came before reaches the chunk through the state
before it, y += Re(O x). The states are a short loop over the chunks, x' = P x + I u, whose inputs I u come from one
matrix product per channel for all chunks together, as do the outputs.

Complex numbers are pairs of real arrays throughout: `Parts` are (real,) or (real, imaginary).
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kernels import dispatch, nonfinite
from kernels.kept_states import named
from kernels.linear_scan.pairs import add, parts, whole
from kernels.products import multiply
from kernels.short_conv.xla import add_lags
from kernels.toeplitz import within_chunks

Parts = tuple[Float[Array, "..."], ...]

# float32 means float32 on accelerators too
_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def lti(u, system, x, reset, lengths, *, within):
  """Computes chunks by "lags" or "products", and the states between them and after each row's last token."""
  (b, t, e), c = u.shape, system.O.shape[1]
  # a product of matrices spreads an inf over its chunk
  (u,), _, after = ((u,), None, None) if within == "lags" else nonfinite.contain(None, None, u)
  extra = -t % c
  chunks = jnp.pad(u, ((0, 0), (0, extra), (0, 0))).reshape(b, -1, c, e)
  resets = None if reset is None else jnp.pad(reset, ((0, 0), (0, extra))).reshape(b, -1, c)
  before, last = _states(chunks, system, x, resets)
  K, read = system.K[:, : min(c, t)], _read(before, system.O, resets, u.dtype)
  if within == "lags":
    y = _add_lags(u.astype(K.dtype), K, c, reset) + read.reshape(b, -1, e)[:, :t]
  else:
    y = (within_chunks(chunks, K) + read).reshape(b, -1, e)[:, :t]
  if lengths is not None or extra:
    ends = jnp.full((b,), t) if lengths is None else lengths
    last = _tail(u, system, tuple(jnp.concatenate([z, a[None]]) for z, a in zip(before, last)), reset, ends)
  return nonfinite.mark(after, y, whole(last).swapaxes(0, 1))


def why_no_products(u, system, x, reset, lengths) -> str | None:
  """Says why products cannot run these arguments: a triangular matrix knows no documents."""
  return None if reset is None else "it masks no documents"


def _add_lags(u, K, c, reset):
  """Convolves the inputs with the kernel within each chunk and document, and returns their part of the outputs."""
  resets = jnp.broadcast_to(jnp.arange(u.shape[1]) % c == 0, u.shape[:2])
  resets = resets if reset is None else reset | resets
  padded = jnp.pad(u, ((0, 0), (K.shape[1] - 1, 0), (0, 0)))
  return add_lags(padded, K.T[::-1], resets, dispatch.prefer("by_token", "by_tap"))


def _states(chunks, system, x, reset):
  """Returns the states before all chunks, "m e b n", and after the last, "e b n"."""
  if reset is not None:
    # Only the last document of a chunk reaches its end, and the state before the chunk only if no document starts.
    document = jnp.cumsum(reset, axis=2)
    chunks = jnp.where((document == document[:, :, -1:])[..., None], chunks, 0)
    reset = (document[:, :, -1] > 0).T
  by_channel = chunks.transpose(3, 1, 0, 2)
  v = tuple(multiply("embc,enc->embn", by_channel, I, chunks.dtype).swapaxes(0, 1) for I in parts(system.I))
  return chunk_scan(parts(system.P), v, parts(x.swapaxes(0, 1)), reset)


def _read(before, O, reset, factors):
  """Returns Re(O x) for the tokens of a chunk before its first document start."""
  states = jnp.concatenate(before, axis=-1).swapaxes(0, 1)
  weights = jnp.concatenate([z if i == 0 else -z for i, z in enumerate(parts(O))], axis=-1)
  y = multiply("embn,ecn->embc", states, weights, factors).transpose(2, 1, 3, 0)
  return y if reset is None else jnp.where((jnp.cumsum(reset, axis=2) == 0)[..., None], y, 0)


def _tail(u, system, states, reset, ends):
  """Returns the states after `ends` tokens of each row, "e b n".

  That is A^r x + I u, with x the state at the last chunk boundary and u the r < c tokens after it, moved to the end of
  a chunk.
  """
  c = system.O.shape[1]
  chunk, rest = jnp.divmod(ends, c)
  slots = jnp.arange(c)
  index = ends[:, None] - c + slots
  valid, resets = slots >= c - rest[:, None], None
  if reset is not None:
    reset = valid & jnp.take_along_axis(reset, jnp.maximum(index, 0), axis=1)
    resets = reset.any(axis=1)
    valid &= jnp.cumsum(reset, axis=1) == reset.sum(axis=1, keepdims=True)
  last = jnp.take_along_axis(u, jnp.maximum(index, 0)[..., None], axis=1)
  last = jnp.where(valid[..., None], last, 0).astype(system.K.dtype)
  x = tuple(jnp.take_along_axis(z, chunk[None, None, :, None], axis=0)[0] for z in states)
  x = _cleared(resets, _advanced(parts(system.A), x, rest, c))
  return add(x, tuple(_einsum("bce,enc->ebn", last, I) for I in parts(system.I)))


def _advanced(A: Parts, x: Parts, steps: Int[Array, "b"], most: int) -> Parts:
  """A^steps x for steps < most, by the binary digits of each row's steps."""
  for digit in range((most - 1).bit_length()):
    odd = (steps >> digit) % 2 == 1
    x = tuple(jnp.where(odd[:, None], a, z) for a, z in zip(_times(A, x), x))
    A = _squared(A)
  return x


@jax.custom_vjp
def chunk_scan(P: Parts, v: Parts, x: Parts, reset: Bool[Array, "m b"] | None) -> tuple[Parts, Parts]:
  """x_{j+1} = P x_j + v_j, without P x_j where `reset` is True; returns all x_j, "m e b n", and the last one."""

  def step(x, inputs):
    v, reset = inputs
    return add(_times(P, _cleared(reset, x)), v), x

  after, before = jax.lax.scan(step, x, (v, reset))
  return before, after


def _chunk_scan_fwd(P, v, x, reset):
  before, after = named(chunk_scan(P, v, x, reset))
  return (before, after), (P, before, reset)


def _chunk_scan_bwd(residuals, gradients):
  P, before, reset = residuals
  adjoint = _adjoint(P)

  def step(carry, inputs):
    d_after, d_P = carry
    x, d_x, reset = inputs
    d_P = add(d_P, _outer(d_after, _cleared(reset, x), diagonal=P[0].ndim == 2))
    return (add(_cleared(reset, _times(adjoint, d_after)), d_x), d_P), d_after

  d_before, d_after = gradients
  zero = jax.tree.map(lambda z: jnp.zeros_like(d_after[0]) if z.ndim == 2 else jnp.zeros_like(z), P)
  (d_x, d_P), d_v = jax.lax.scan(step, (d_after, zero), (before, d_before, reset), reverse=True)
  return tuple(z.sum(axis=1) for z in d_P) if P[0].ndim == 2 else d_P, d_v, d_x, None


chunk_scan.defvjp(_chunk_scan_fwd, _chunk_scan_bwd)


def _cleared(reset: Bool[Array, "b"] | None, x: Parts) -> Parts:
  return x if reset is None else tuple(jnp.where(reset[:, None], 0, z) for z in x)


def _times(A: Parts, x: Parts) -> Parts:
  """Returns a x per channel: "e n" or "e i j" times "e b n"."""
  if A[0].ndim == 2:
    return _product(lambda a, z: a[:, None] * z, A, x)
  return _product(lambda a, z: _einsum("eij,ebj->ebi", a, z), A, x)


def _squared(A: Parts) -> Parts:
  return _product(jnp.multiply if A[0].ndim == 2 else functools.partial(_einsum, "eij,ejk->eik"), A, A)


def _outer(d: Parts, x: Parts, *, diagonal: bool) -> Parts:
  """d x* per channel, of which a diagonal keeps the diagonal, row by row: "e b n" or "e i j"."""
  conjugate = tuple(z if i == 0 else -z for i, z in enumerate(x))
  return _product(jnp.multiply if diagonal else lambda a, z: _einsum("ebi,ebj->eij", a, z), d, conjugate)


def _adjoint(A: Parts) -> Parts:
  """Returns the conjugate transpose."""
  transposed = A if A[0].ndim == 2 else tuple(z.swapaxes(1, 2) for z in A)
  return tuple(z if i == 0 else -z for i, z in enumerate(transposed))


def _product(times, x: Parts, y: Parts) -> Parts:
  """Returns the complex product made of a real one."""
  if len(x) == 1:
    return (times(x[0], y[0]),)
  (x_re, x_im), (y_re, y_im) = x, y
  return times(x_re, y_re) - times(x_im, y_im), times(x_re, y_im) + times(x_im, y_re)
