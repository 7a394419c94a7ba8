"""Powers of a dense transition, and the taps and the `System` made of them: what S4 and LSSL hand to `lti`.

A transition comes as E = A - I. A slow state differs from standing still by less than a number near 1 can show in
float32; E shows it, and (I + E)^2 - I = 2 E + E^2 keeps it. Everything is real; complex states are real and imaginary
parts side by side.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.lti import System

HIGHEST = jax.lax.Precision.HIGHEST


def rows(C: Float[Array, "e n"], E: Float[Array, "e n n"], count: int) -> Float[Array, "e c n"]:
  """C A^i for i < count, twice as many with every squaring of A."""
  found = C[:, None]
  while found.shape[1] < count:
    found = jnp.concatenate([found, found + _times(found, E)], axis=1)
    if found.shape[1] < count:
      E = _squared(E)
  return found[:, :count]


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


def taps(
  E: Float[Array, "e n n"], B: Float[Array, "e n"], C: Float[Array, "e n"], D: Float[Array, "e"], l: int
) -> Float[Array, "e l"]:
  """K_i = C A^i B for i < l, plus D at i = 0: rows C A^(jc) times columns A^k B, c about sqrt(l)."""
  c = 2 ** math.ceil(math.log2(max(1, l)) / 2)
  outer = rows(C, power(E, c), -(-l // c))
  inner = rows(B, E.swapaxes(1, 2), c)
  K = jnp.einsum("emn,ecn->emc", outer, inner, precision=HIGHEST).reshape(E.shape[0], -(-l // c) * c)[:, :l]
  return K + jnp.where(jnp.arange(l) == 0, D[:, None], 0)


def system(
  E: Float[Array, "e n n"], B: Float[Array, "e n"], C: Float[Array, "e n"], D: Float[Array, "e"], c: int
) -> System:
  """x_t = A x_{t-1} + B u_t, y_t = C x_t + D u_t, in chunks of c tokens."""
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


def _times(x: Float[Array, "e m n"], E: Float[Array, "e n n"]) -> Float[Array, "e m n"]:
  return jnp.matmul(x, E, precision=HIGHEST)


def _squared(E: Float[Array, "e n n"]) -> Float[Array, "e n n"]:
  return 2 * E + _times(E, E)
