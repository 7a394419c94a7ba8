"""HiPPO matrices: their eigenvalues, their normal parts, and that they remember."""

import numpy as np
import pytest
from numpy.polynomial import laguerre, legendre

from ssm.lti import hippo


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_legs_eigenvalues_are_minus_one_to_minus_n(n):
  A, _ = hippo.legs(n)
  # lower triangular, so they stand on the diagonal; an eigensolver agrees as long as it has digits
  assert not np.triu(A, 1).any()
  np.testing.assert_array_equal(np.diag(A), -np.arange(1, n + 1))
  if n <= 7:
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(A).real), -np.arange(n, 0, -1), rtol=1e-8)


def test_lagt_eigenvalues_are_minus_one_half():
  A, _ = hippo.lagt(5)
  assert not np.triu(A, 1).any()
  np.testing.assert_array_equal(np.diag(A), -0.5)


@pytest.mark.parametrize("measure", hippo.MEASURES)
def test_no_eigenvalue_grows(measure):
  """Only the constant sine of FouT, which no input reaches, stays as it is."""
  values = np.linalg.eigvals(hippo.MEASURES[measure](12)[0])
  assert (values.real < 1e-12).all()
  assert (values.real > -1e-6).sum() == (measure == "fout")


@pytest.mark.parametrize("measure", hippo.MEASURES)
@pytest.mark.parametrize("n", [2, 8, 64, 256])
def test_normal_part_rebuilds_the_matrix(measure, n):
  """A = V diag(lam) V* - P^T P, with V unitary and all real parts -1/2 or 0."""
  lam, V = hippo.normal(measure, n)
  P = hippo.low_rank(measure, n)
  assert P.shape == (2 if measure == "legt" else 1, n)
  A = V @ np.diag(lam) @ V.conj().T - P.T @ P
  np.testing.assert_allclose(A, hippo.MEASURES[measure](n)[0], atol=1e-10 * n**2)
  np.testing.assert_allclose(V @ V.conj().T, np.eye(n), atol=1e-12)
  np.testing.assert_array_equal(lam.real, -0.5 if measure == "legs" else 0)


@pytest.mark.parametrize("measure", hippo.MEASURES)
@pytest.mark.parametrize("n", [2, 64])
def test_dplr_is_the_dense_matrix(measure, n):
  """In value, and as what any basis shows of A and B: the numbers P A^k B."""
  A, B = hippo.MEASURES[measure](n)
  lam, V = hippo.normal(measure, n)
  half = hippo.dplr(measure, n)
  assert (half.lam.imag <= 0).all()
  full = [np.concatenate([z, z.conj()[..., ::-1]], axis=-1) for z in half]
  rotated = np.diag(full[0]) - full[1].T @ full[1].conj()
  np.testing.assert_allclose(V @ rotated @ V.conj().T, A, atol=1e-10 * n**2)
  np.testing.assert_allclose(V @ full[2], B, atol=1e-10 * n)
  P = hippo.low_rank(measure, n)
  for _ in range(3):
    np.testing.assert_allclose(full[1].conj() @ full[2], P @ B, rtol=1e-9)
    full[2], B = rotated @ full[2], A @ B


@pytest.mark.parametrize("measure", ["legs", "legt", "lagt", "fout"])
def test_normal_parts_eigenvalues_are_sorted_conjugate_pairs(measure):
  lam, V = hippo.normal(measure, 16)
  assert (np.diff(lam.imag) >= 0).all()
  np.testing.assert_allclose(lam[:8], lam[:7:-1].conj(), atol=1e-12)
  np.testing.assert_allclose(V[:, :8], V[:, :7:-1].conj(), atol=1e-10)
  np.testing.assert_allclose(V[0].imag, 0, atol=1e-15)
  assert (V[0].real > 0).all() or measure == "fout"


def exponential(M):
  """By its series, of M halved often enough, squared as often."""
  halvings = max(0, int(np.ceil(np.log2(np.linalg.norm(M, 1)))) + 1)
  term = total = np.eye(len(M))
  for k in range(1, 20):
    term = term @ M / 2**halvings / k
    total = total + term
  return np.linalg.matrix_power(total, 2**halvings)


@pytest.mark.parametrize(
  "measure, n, end, tolerance", [("legs", 64, 2.0, 2e-3), ("legt", 32, 2.0, 1e-4), ("lagt", 128, 2.0, 0.1)]
)
def test_a_signal_is_rebuilt_from_its_coefficients(measure, n, end, tolerance):
  """Of a signal that began 12 units ago, the last `end` units; root mean square error relative to the signal's."""
  rebuilt, signal = remember(measure, n, end)
  assert relative_error(rebuilt, signal) < tolerance


def test_fout_rebuilds_a_signal_within_its_window():
  """In the mean: a Fourier series overshoots where the window's ends differ, so the ends are left out."""
  rebuilt, signal = remember("fout", 64, 2.0)
  assert relative_error(rebuilt[100:-100], signal[100:-100]) < 0.02


@pytest.mark.parametrize("measure", hippo.MEASURES)
def test_more_coefficients_rebuild_better(measure):
  errors = [relative_error(*remember(measure, n, 1.5)) for n in (4, 8, 16)]
  assert errors[0] > 1.2 * errors[1] > 1.4 * errors[2]


def relative_error(actual, desired):
  return np.sqrt(np.mean((actual - desired) ** 2) / np.mean(desired**2))


def remember(measure, n, end):
  """The last `end` units of a signal, rebuilt from the state after it and as they were."""
  A, B = hippo.MEASURES[measure](n)
  dt = 2e-3
  times = dt * (np.arange(6000) + 0.5)
  u = np.sin(2 * times) + 0.5 * np.sin(5 * times + 1) * np.sin(0.3 * times)
  # held over each step: the input as one more state that stands still
  held = exponential(dt * np.block([[A, B[:, None]], [np.zeros((1, n + 1))]]))
  decay, gain = held[:n, :n], held[:n, n]
  x = np.zeros(n)
  for value in u:
    x = decay @ x + gain * value
  past = 6000 * dt - times[times > 6000 * dt - end]
  return basis(measure, n, past) @ x, u[-len(past) :]


def basis(measure, n, past):
  """Returns the functions in which x' = A x + B u remembers u: u(t - past) is about basis @ x(t).

  `past` ends at 2 for "legt" and "fout", whose memory does; the others remember all of it, ever more coarsely.
  """
  root = np.sqrt(2.0 * np.arange(n) + 1)
  if measure == "legs":
    return legendre.legvander(2 * np.exp(-past) - 1, n - 1) * root
  if measure == "legt":
    return legendre.legvander(1 - past, n - 1) * root
  if measure == "lagt":
    return laguerre.lagvander(past, n - 1) * np.exp(-past / 2)[:, None]
  angles = np.pi * np.outer(past, np.arange(n // 2))
  waves = np.sqrt(2.0) * np.stack([np.cos(angles), np.sin(angles)], axis=-1).reshape(len(past), n)
  waves[:, 0] = 1
  return waves


def test_legs_remembers_on_legendre_polynomials():
  """x' = (A x + B u)/t keeps the Legendre coefficients of u on [0, t]; of u(s) = s they are known in closed form."""
  A, B = hippo.legs(4)
  steps = 4000
  x = np.zeros(4)
  for k in range(1, steps + 1):
    # backward Euler of the scaled system, with t = k
    x = np.linalg.solve(np.eye(4) - A / k, x + B * (k / steps) / k)
  np.testing.assert_allclose(x, [0.5, 0.5 / np.sqrt(3), 0, 0], atol=2e-3)


def test_odd_sizes_have_no_pairs():
  with pytest.raises(ValueError, match="n=3 is odd; one of each conjugate pair"):
    hippo.dplr("legs", 3)
  with pytest.raises(ValueError, match="n=3 is odd; states are pairs"):
    hippo.fout(3)
