"""HiPPO matrices and their diagonal forms, in NumPy float64: they are made once, when parameters are initialised.

Gu, Dao, Ermon, Rudra & Re 2020, arXiv:2008.07669; Gu, Goel & Re 2021, arXiv:2111.00396. Theirs: N -> n.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Complex128, Float64


class NormalPart(NamedTuple):
  """S = V diag(lam) V*, the normal matrix left of a HiPPO matrix once its low-rank term is taken away."""

  lam: Complex128[np.ndarray, "n"]  # by rising imaginary part: the conjugate pairs are (i, n - 1 - i)
  V: Complex128[np.ndarray, "n n"]  # unitary; the first row is real and not negative


def legs(n: int) -> tuple[Float64[np.ndarray, "n n"], Float64[np.ndarray, "n"]]:
  """A and B of HiPPO-LegS without its 1/t: x' = A x + B u remembers u on Legendre polynomials of a warped past.

  A_ik = -sqrt((2i+1)(2k+1)) below the diagonal, -(i+1) on it, 0 above; B_i = sqrt(2i+1)     thm. 2.
  """
  B = np.sqrt(2.0 * np.arange(n) + 1)
  A = -np.tril(np.outer(B, B), -1) - np.diag(np.arange(n) + 1.0)
  return A, B


def legs_low_rank(n: int) -> Float64[np.ndarray, "n"]:
  """P with A + P P^T = -1/2 + a skew matrix, for the A of `legs`: P_i = sqrt(i + 1/2)."""
  return np.sqrt(np.arange(n) + 0.5)


@functools.cache  # a module asks for it whenever it is traced
def legs_normal(n: int) -> NormalPart:
  """The eigenvalues and eigenvectors of S = A + P P^T for LegS; all real parts are -1/2.

  -i(S + 1/2) is Hermitian, so `eigh` finds them to working precision, where a general eigensolver for A loses all
  digits around n = 50. Phases of eigenvectors are free; fixing them makes the result the same on every machine.
  """
  A, _ = legs(n)
  P = legs_low_rank(n)
  S = A + np.outer(P, P)
  frequencies, V = np.linalg.eigh(-1j * (S + 0.5 * np.eye(n)))
  first = V[0]
  V = V * (first.conj() / np.abs(first))
  return NormalPart(lam=-0.5 + 1j * frequencies, V=V)
