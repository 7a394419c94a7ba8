"""HiPPO-LegS and its normal part."""

import numpy as np
import pytest

from ssm.lti import hippo


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_legs_eigenvalues_are_minus_one_to_minus_n(n):
  A, _ = hippo.legs(n)
  # lower triangular, so they stand on the diagonal; an eigensolver agrees as long as it has digits
  assert not np.triu(A, 1).any()
  np.testing.assert_array_equal(np.diag(A), -np.arange(1, n + 1))
  if n <= 7:
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(A).real), -np.arange(n, 0, -1), rtol=1e-8)


@pytest.mark.parametrize("n", [2, 7, 64, 256])
def test_normal_part_rebuilds_legs(n):
  """A = V diag(lam) V* - P P^T, with V unitary and all real parts -1/2."""
  lam, V = hippo.legs_normal(n)
  P = hippo.legs_low_rank(n)
  A = V @ np.diag(lam) @ V.conj().T - np.outer(P, P)
  np.testing.assert_allclose(A, hippo.legs(n)[0], atol=1e-10 * n**2)
  np.testing.assert_allclose(V @ V.conj().T, np.eye(n), atol=1e-12)
  np.testing.assert_array_equal(lam.real, -0.5)


def test_normal_parts_eigenvalues_are_sorted_conjugate_pairs():
  lam, V = hippo.legs_normal(16)
  assert (np.diff(lam.imag) > 0).all()
  np.testing.assert_allclose(lam[:8], lam[:7:-1].conj(), atol=1e-12)
  np.testing.assert_allclose(V[0].imag, 0, atol=1e-15)
  assert (V[0].real > 0).all()


def test_legs_remembers_on_legendre_polynomials():
  """x' = (A x + B u)/t keeps the Legendre coefficients of u on [0, t]; of u(s) = s they are known in closed form."""
  A, B = hippo.legs(4)
  steps = 4000
  x = np.zeros(4)
  for k in range(1, steps + 1):
    # backward Euler of the scaled system, with t = k
    x = np.linalg.solve(np.eye(4) - A / k, x + B * (k / steps) / k)
  np.testing.assert_allclose(x, [0.5, 0.5 / np.sqrt(3), 0, 0], atol=2e-3)
