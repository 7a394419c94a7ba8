"""HiPPO matrices and their diagonal forms, in NumPy float64: they are made once, when parameters are initialised.

Gu, Dao, Ermon, Rudra & Re 2020, arXiv:2008.07669; Gu, Goel & Re 2021, arXiv:2111.00396; Gu, Johnson, Timalsina,
Rudra & Re 2022, arXiv:2206.12037 ("fout"). Theirs: N -> n.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Complex128, Float64

from mistake import Mistake


class NormalPart(NamedTuple):
  """S = V diag(lam) V*, the normal matrix left of a HiPPO matrix once its low-rank term is taken away."""

  lam: Complex128[np.ndarray, "n"]  # by rising imaginary part: the conjugate pairs are (i, n - 1 - i)
  V: Complex128[np.ndarray, "n n"]  # unitary; of eigenvectors found by number the first row is real and not negative


class DPLR(NamedTuple):
  """diag(lam) - P^T conj(P) and B: a HiPPO matrix in the eigenbasis of its normal part, one of each conjugate pair."""

  lam: Complex128[np.ndarray, "m"]  # imaginary parts at most 0
  P: Complex128[np.ndarray, "r m"]
  B: Complex128[np.ndarray, "m"]


def legs(n: int) -> tuple[Float64[np.ndarray, "n n"], Float64[np.ndarray, "n"]]:
  """Returns A and B of HiPPO-LegS without its 1/t: x' = A x + B u remembers u on Legendre polynomials of a warped past.

  A_ik = -sqrt((2i+1)(2k+1)) below the diagonal, -(i+1) on it, 0 above; B_i = sqrt(2i+1)     thm. 2.
  """
  B = np.sqrt(2.0 * np.arange(n) + 1)
  A = -np.tril(np.outer(B, B), -1) - np.diag(np.arange(n) + 1.0)
  return A, B


def legt(n: int) -> tuple[Float64[np.ndarray, "n n"], Float64[np.ndarray, "n"]]:
  """Returns A and B of HiPPO-LegT: Legendre polynomials of the last 2 units of time.

  A_ik = -1/2 sqrt((2i+1)(2k+1)), times (-1)^(i-k) above the diagonal; B_i = 1/2 sqrt(2i+1)     thm. 1, theta = 2.
  """
  root = np.sqrt(2.0 * np.arange(n) + 1)
  signs = np.where(np.add.outer(np.arange(n), np.arange(n)) % 2, -1.0, 1.0)
  return -0.5 * np.outer(root, root) * np.where(np.tri(n, dtype=bool), 1.0, signs), 0.5 * root


def lagt(n: int) -> tuple[Float64[np.ndarray, "n n"], Float64[np.ndarray, "n"]]:
  """Returns A and B of HiPPO-LagT: Laguerre functions. A_ik = -1 below the diagonal, -1/2 on it; B_i = 1."""
  return 0.5 * np.eye(n) - np.tri(n), np.ones(n)


def fout(n: int) -> tuple[Float64[np.ndarray, "n n"], Float64[np.ndarray, "n"]]:
  """Returns A and B of FouT: Fourier coefficients of the last 2 units of time; states 2m, 2m+1 are cos and sin of pi m.

  A = a rotation of each pair by pi m, less B B^T; B_0 = 1, B_2m = sqrt(2), 0 at the sines     arXiv:2206.12037.

  Raises:
    ValueError: n is odd.
  """
  if n % 2:
    raise Mistake(f"hippo.fout: n={n} is odd; states are pairs of cosine and sine")
  cosines = np.arange(0, n, 2)
  B = np.zeros(n)
  B[cosines] = np.where(cosines == 0, 1.0, np.sqrt(2.0))
  A = -np.outer(B, B)
  A[cosines + 1, cosines] += np.pi * cosines / 2
  A[cosines, cosines + 1] -= np.pi * cosines / 2
  return A, B


MEASURES = {"legs": legs, "legt": legt, "lagt": lagt, "fout": fout}


def low_rank(measure: str, n: int) -> Float64[np.ndarray, "r n"]:
  """Returns P with A + P^T P normal: -1/2 plus a skew matrix for "legs", skew for the others. r is 2 for "legt"."""
  index = np.arange(n)
  if measure == "legs":
    return np.sqrt(index + 0.5)[None]
  if measure == "legt":
    return np.sqrt(index + 0.5) * np.stack([index % 2 == 0, index % 2 == 1])
  if measure == "lagt":
    return np.full((1, n), 0.5**0.5)
  return fout(n)[1][None]


@functools.cache  # a module asks for it whenever it is traced
def normal(measure: str, n: int) -> NormalPart:
  """Finds the eigenvalues and eigenvectors of S = A + P^T P; real parts are -1/2 for "legs" and 0 for the others.

  S less its real part is skew and i times it Hermitian, so `eigh` finds them to working precision, where a general
  eigensolver for A loses all digits around n = 50. Phases of eigenvectors are free; fixing them makes the result the
  same on every machine. Those of "fout" are known, which also settles the pair at frequency 0.
  """
  if measure == "fout":
    m = np.arange(n // 2)[::-1]
    below = np.zeros((n, n // 2), complex)
    below[2 * m, np.arange(n // 2)], below[2 * m + 1, np.arange(n // 2)] = 0.5**0.5, 0.5**0.5 * 1j
    return NormalPart(
      lam=1j * np.pi * np.concatenate([-m, m[::-1]]), V=np.concatenate([below, below[:, ::-1].conj()], axis=1)
    )
  P = low_rank(measure, n)
  S = MEASURES[measure](n)[0] + P.T @ P
  real = -0.5 if measure == "legs" else 0.0
  frequencies, V = np.linalg.eigh(-1j * (S - real * np.eye(n)))
  first = V[0]
  V = V * (first.conj() / np.abs(first))
  return NormalPart(lam=real + 1j * frequencies, V=V)


def legs_normal(n: int) -> NormalPart:
  """Returns `normal` of LegS, the spectrum from which diagonal state spaces start."""
  return normal("legs", n)


def dplr(measure: str, n: int) -> DPLR:
  """Returns the form S4 computes with: from each conjugate pair of `normal` the one with negative imaginary part.

  Raises:
    ValueError: n is odd.
  """
  if n % 2:
    raise Mistake(f"hippo.dplr: n={n} is odd; one of each conjugate pair is kept")
  lam, V = normal(measure, n)
  change = V[:, : n // 2].conj().T
  return DPLR(lam=lam[: n // 2], P=low_rank(measure, n) @ change.T, B=change @ MEASURES[measure](n)[1])
