"""State spaces with a dense transition, one per channel, for S4, LSSL and LinOSS, and the powers of the transition.

A transition comes as E = A - I. A slow state differs from standing still by less than a number near 1 can show in
float32; E shows it, and (I + E)^2 - I = 2 E + E^2 keeps it. Everything is real; complex states are real and imaginary
parts side by side.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.inputs import Lengths, Reset
from kernels.lti import System, lti, plan

HIGHEST = jax.lax.Precision.HIGHEST


class Recurrence(NamedTuple):
  """h_t = (I + E) h_{t-1} + B u_t,  y_t = C h_t + D u_t for each channel."""

  E: Float[Array, "e n n"]
  B: Float[Array, "e n"]
  C: Float[Array, "e n"]
  D: Float[Array, "e"]


def resume(
  u: Float[Array, "b t e"],
  recurrence: Recurrence,
  h: Float[Array, "b e n"],
  *,
  reset: Reset = None,
  lengths: Lengths = None,
) -> tuple[Float[Array, "b t e"], Float[Array, "b e n"]]:
  """Returns all y, going on from the state h, and the state after each row's last token."""
  if u.shape[1] == 1 and reset is None and lengths is None:
    return _one_token(u, recurrence, h)
  _, c = plan(u.shape[1], packed=reset is not None)
  return lti(u, system(recurrence, c), h, reset=reset, lengths=lengths)


def rows(C: Float[Array, "e n"], E: Float[Array, "e n n"], count: int) -> Float[Array, "e c n"]:
  """C A^i for i < count, twice as many with every squaring of A."""
  rows = C[:, None]
  while rows.shape[1] < count:
    rows = jnp.concatenate([rows, rows + _times(rows, E)], axis=1)
    if rows.shape[1] < count:
      E = _squared(E)
  return rows[:, :count]


def power(E: Float[Array, "e n n"], l: int) -> Float[Array, "e n n"]:
  """A^l - I."""
  if l < 2:
    return E if l else jnp.zeros_like(E)
  even = power(_squared(E), l // 2)
  return even + E + _times(even, E) if l % 2 else even


def change_of_row(C: Float[Array, "e n"], E: Float[Array, "e n n"], l: int) -> Float[Array, "e n"]:
  """C (A^l - I), by the squares of A alone."""
  C = C[:, None]
  change = jnp.zeros_like(C)
  while l:
    if l % 2:
      change = change + _times(C + change, E)
    l //= 2
    if l:
      E = _squared(E)
  return change[:, 0]


def taps(recurrence: Recurrence, l: int) -> Float[Array, "e l"]:
  """K_i = C A^i B for i < l, plus D at i = 0: rows C A^(jc) times columns A^k B, c about sqrt(l)."""
  E, B, C, D = recurrence
  c = 2 ** math.ceil(math.log2(max(1, l)) / 2)
  outer = rows(C, power(E, c), -(-l // c))
  inner = rows(B, E.swapaxes(1, 2), c)
  K = jnp.einsum("emn,ecn->emc", outer, inner, precision=HIGHEST).reshape(E.shape[0], -(-l // c) * c)[:, :l]
  return K + jnp.where(jnp.arange(l) == 0, D[:, None], 0)


def system(recurrence: Recurrence, c: int) -> System:
  """Returns the recurrence in chunks of c tokens."""
  E, B, C, D = recurrence
  ahead = rows(C, E, c + 1)
  K = jnp.einsum("ecn,en->ec", ahead[:, :c], B, precision=HIGHEST)
  one = jnp.eye(E.shape[1], dtype=E.dtype)
  return System(
    K=K + jnp.where(jnp.arange(c) == 0, D[:, None], 0),
    A=one + E,
    O=ahead[:, 1:],
    I=jnp.flip(rows(B, E.swapaxes(1, 2), c), axis=1).swapaxes(1, 2),
    P=one + power(E, c),
  )


def _one_token(
  u: Float[Array, "b 1 e"], recurrence: Recurrence, h: Float[Array, "b e n"]
) -> tuple[Float[Array, "b 1 e"], Float[Array, "b e n"]]:
  """Returns the recurrence as it is written, without the powers that a chunk needs."""
  E, B, C, D = recurrence
  h = h + jnp.einsum("eij,bej->bei", E, h, precision=HIGHEST) + B * u[:, 0, :, None]
  y = jnp.sum(C * h, axis=-1) + D * u[:, 0]
  return y[:, None].astype(u.dtype), h


def _times(x: Float[Array, "e m n"], E: Float[Array, "e n n"]) -> Float[Array, "e m n"]:
  return jnp.matmul(x, E, precision=HIGHEST)


def _squared(E: Float[Array, "e n n"]) -> Float[Array, "e n n"]:
  return 2 * E + _times(E, E)
