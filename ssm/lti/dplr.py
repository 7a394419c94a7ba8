"""x' = A x + B u with A = diag(lam) - P P*, diagonal plus low rank, by Tustin's rule: one step, taps, dense form.

Gu, Goel & Re 2021, arXiv:2111.00396. Of each conjugate pair of states one is kept, so that a product of a row and a
state is 2 Re(sum_n ...). A + A* is negative wherever Re(lam) is: no step grows, whatever P.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Complex128, Float, Float64

from kernels.cauchy import cauchy
from ssm.lti import dense


class Continuous(NamedTuple):
  """One system per channel and its time step; of each conjugate pair one number is stored."""

  dt: Float[Array, "e"]
  lam: Complex[Array, "e n"]
  P: Complex[Array, "e n"]
  B: Complex[Array, "e n"]
  C: Complex[Array, "e n"]


def change(
  dt: Float[Array, "e"],
  lam: Complex[Array, "e n"],
  P: Complex[Array, "e n"],
  x: Complex[Array, "*b e n"],
  Bu: Complex[Array, "*b e n"],
) -> Complex[Array, "*b e n"]:
  """x_t - x_{t-1} = 2 (2/dt - A)^{-1} (A x_{t-1} + B u_t) from x = x_{t-1}, in O(n).

  This is Tustin's rule without the difference of near equals in Abar - I. The inverse is Woodbury's:
  (2/dt - A)^{-1} = R - R P (1 + P* R P)^{-1} P* R with R = (2/dt - lam)^{-1}.
  """
  R = 1 / (2 / dt[:, None] - lam)
  z = lam * x - P * _row(P.conj(), x)[..., None] + Bu
  inner = _row(P.conj(), R * z) / (1 + _row(P.conj(), R * P))
  return 2 * R * (z - P * inner[..., None])


def transition(dt: Float[Array, "e"], lam: Complex[Array, "e n"], P: Complex[Array, "e n"]) -> Float[Array, "e m m"]:
  """Returns Abar - I as a dense matrix that acts on `as_state(x)`; its columns are `change` of the unit vectors."""
  e, n = lam.shape
  one = jnp.concatenate([jnp.eye(n), 1j * jnp.eye(n)]).astype(lam.dtype)
  one = jnp.broadcast_to(one[:, None], (2 * n, e, n))
  return jnp.moveaxis(as_state(change(dt, lam, P, one, jnp.zeros_like(one))), 0, -1)


def as_state(x: Complex[Array, "*b n"]) -> Float[Array, "*b m"]:
  """Puts real and imaginary parts side by side."""
  return jnp.concatenate([x.real, x.imag], axis=-1)


def as_row(C: Complex[Array, "*b n"]) -> Float[Array, "*b m"]:
  """Returns the row whose product with `as_state(x)` is 2 Re(sum C x)."""
  return 2 * as_state(C.conj())


def taps(
  dt: Float[Array, "e"],
  lam: Complex[Array, "e n"],
  P: Complex[Array, "e n"],
  B: Complex[Array, "e n"],
  C: Complex[Array, "e n"],
  l: int,
) -> Float[Array, "e l"]:
  """K_i = 2 Re(C Abar^i Bbar) for i < l, from the kernel's spectrum at the l-th roots of unity     alg. 1.

  With Ct = C (I - Abar^l), which cuts the series off after l terms, its value at w = e^{-i theta} is

    K^(w) = dt e^{i theta/2} (S(Ct, B) - q dt S(Ct, P) S(P*, B) / (1 + q dt S(P*, P))),
    S(a, b) = sum over all n of a_n b_n / (2i sin(theta/2) - q dt lam_n),   q = cos(theta/2),

  which is the paper's 2/(1+w) (...) with z = 2(1-w)/(1+w) multiplied out: nothing in it is infinite at w = -1.
  """
  row = -dense.change_of_row(as_row(C), transition(dt, lam, P), l)
  C_cut = jax.lax.complex(*jnp.split(row, 2, axis=-1)).conj() / 2
  half = np.pi * np.arange(l // 2 + 1) / l
  p, q = 2 * np.sin(half), np.cos(half)
  q[2 * np.arange(q.size) == l] = 0  # exactly, where w = -1
  products = jnp.stack([C_cut * B, C_cut * P, P.conj() * B, P.conj() * P], axis=1)
  S = cauchy(products, dt[:, None] * lam, jnp.asarray(p, dt.dtype), jnp.asarray(q, dt.dtype))
  qdt = jnp.asarray(q, dt.dtype) * dt[:, None]
  turn = jnp.asarray(np.exp(1j * half), lam.dtype)
  return jnp.fft.irfft(dt[:, None] * turn * (S[:, 0] - qdt * S[:, 1] * S[:, 2] / (1 + qdt * S[:, 3])), l)


def uncut(
  C_cut: Complex128[np.ndarray, "e n"],
  l: int,
  dt: Float64[np.ndarray, "e"],
  lam: Complex128[np.ndarray, "e n"],
  P: Complex128[np.ndarray, "e n"],
) -> Complex128[np.ndarray, "e n"]:
  """Returns C from C (I - Abar^l), which the authors' code trains and stores beside its kernel length l.

  It is computed once, in float64: where Abar^l is near I, the stored numbers have already lost digits of C.
  """
  full = lambda z: np.concatenate([z, z.conj()], axis=-1)
  rows = []
  for row, step, diagonal, low_rank in zip(C_cut, dt, full(lam), full(P)):
    A = step / 2 * (np.diag(diagonal) - np.outer(low_rank, low_rank.conj()))
    one = np.eye(len(A))
    power = np.linalg.matrix_power(np.linalg.solve(one - A, one + A), l)
    rows.append(np.linalg.solve((one - power).T, full(row))[: len(row)])
  return np.stack(rows)


def _row(C: Complex[Array, "e n"], x: Complex[Array, "*b e n"]) -> Float[Array, "*b e"]:
  return 2 * jnp.sum((C * x).real, axis=-1)
