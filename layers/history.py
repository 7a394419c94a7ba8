"""A long convolution that can be stopped and resumed: its state is the whole input, in a buffer of fixed size.

`require` also serves other mixers that have a `max_len`.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kernels.documents import positions
from kernels.inputs import Lengths, Reset
from kernels.long_conv import long_conv
from layers.lengths import blank_past
from mistake import Mistake


class History(NamedTuple):
  """The inputs of the current document, newest last, with zeros where it has no more."""

  u: Float[Array, "b s e"]
  length: Int[Array, "b"]  # tokens of the document so far; more than s once it did not fit


def require(mixer: str, tokens: int, max_len: int) -> None:
  """Checks that a mixer built for `max_len` tokens need not read more.

  Raises:
    ValueError: `tokens` is above `max_len`.
  """
  if tokens > max_len:
    raise Mistake(f"{mixer}: {tokens} tokens, but it was built for max_len={max_len}; build it with a larger one")


def empty(batch: int, max_len: int, width: int) -> History:
  """Returns the state before any token, with room for a document of `max_len` tokens."""
  return History(u=jnp.zeros((batch, max_len, width)), length=jnp.zeros((batch,), jnp.int32))


def resume(
  u: Float[Array, "b t e"], k: Float[Array, "e l"], past: History, *, reset: Reset = None, lengths: Lengths = None
) -> tuple[Float[Array, "b t e"], History]:
  """y_t = sum_{i>=0} k_i u_{t-i} over the document, the past included; see `kernels.long_conv`.

  A token for which the buffer has no room has y = NaN.

  Args:
    k: taps by lag; those past the buffer's size are not used.
  """
  s, t = past.u.shape[1], u.shape[1]
  if t == 1 and reset is None and lengths is None:
    return _one_token(u, k, past)
  line = jnp.concatenate([past.u, u.astype(past.u.dtype)], axis=1)
  line_reset = None if reset is None else jnp.pad(reset, ((0, 0), (s, 0)))
  y = long_conv(line, k[:, :s], reset=line_reset, lengths=None if lengths is None else s + lengths)[:, s:]
  position, length = positions(past.length, t, reset=reset, lengths=lengths)
  y = jnp.where((position >= s)[..., None], jnp.nan, y)
  if lengths is None:
    newest = line[:, t:]
  else:
    newest = jnp.take_along_axis(line, (lengths[:, None] + jnp.arange(s))[..., None], axis=1)
  if reset is not None:
    newest = jnp.where((s - jnp.arange(s) <= length[:, None])[..., None], newest, 0)
  # a NaN in the padding would reach the gradients of all factors of y
  return blank_past(y, lengths).astype(u.dtype), History(u=newest, length=length)


def _one_token(
  u: Float[Array, "b 1 e"], k: Float[Array, "e l"], past: History
) -> tuple[Float[Array, "b 1 e"], History]:
  """Returns the product of the buffer with all the taps."""
  s = past.u.shape[1]
  newest = jnp.concatenate([past.u[:, 1:], u.astype(past.u.dtype)], axis=1)
  recent = newest[:, max(0, s - k.shape[1]) :]
  y = jnp.einsum("bse,es->be", recent, k[:, : recent.shape[1]][:, ::-1])
  y = jnp.where((past.length >= s)[:, None], jnp.nan, y)
  return y[:, None].astype(u.dtype), History(u=newest, length=past.length + 1)
