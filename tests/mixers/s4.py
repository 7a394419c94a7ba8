"""S4: small sizes, parameter count, oracle, refusals; three views of one system, its kernel, the authors' C."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssm.lti import dense, dplr, hippo
from ssm.lti.s4 import S4
from tests.initial import variables
from tests.stepped import stepped

SMALL = {"": dict(state=6)}
ORACLE = {
  "": dict(state=6),
  "fout and shared": dict(state=4, A_init="fout", copies=2, step_rescale=2.0, activation="gelu"),
}
RESUMED = ("",)
REFUSED = [
  (dict(state=7), "state=7; conjugate pairs are stored once, so it must be even"),
  (dict(copies=3), "copies=3 does not divide width=8"),
  (dict(A_init="lin"), "A_init='lin'; choose from ['legs', 'fout']"),
  (dict(activation="relu"), "activation='relu'; choose from"),
  (dict(dt_min=0.0), "dt_min=0.0, dt_max=0.1"),
  (dict(step_rescale=0.0), "S4: step_rescale=0.0; it must be above 0"),
]
TRAINED = {"slow": {"A_log", "A_im", "P_re", "P_im", "B_re", "B_im", "log_dt"}}
RNG = np.random.default_rng(0)


def count(d, state):
  """lam, P and B in every channel, C; D and dt; the map to 2d with bias."""
  return 4 * d * state + 2 * d + 2 * d * (d + 1)


def run(module, variables, *args, method="__call__", **kwargs):
  return jax.jit(functools.partial(module.apply, method=method))(variables, *args, **kwargs)


@functools.cache
def initial(width, **kwargs):
  module = S4(width=width, activation="none", **kwargs)
  return module, jax.tree.map(np.asarray, variables(module)["params"])


def continuous(p, dtype=complex):
  """dt, lam, P, B and C of an uncopied layer, in double precision unless told."""
  wide = {name: value.astype(np.zeros(0, dtype).real.dtype) for name, value in p.items()}
  part = lambda name: wide[f"{name}_re"] + 1j * wide[f"{name}_im"]
  return np.exp(wide["log_dt"]), -np.exp(wide["A_log"]) + 1j * wide["A_im"], part("P"), part("B"), part("C")


def both(z):
  return np.concatenate([z, z.conj()], axis=-1)


def test_three_views_are_equal():
  """The convolution, the recurrence, and x' = A x + B u by Runge and Kutta, as steps get finer and u stays the same."""
  fine, t = 40, 25
  module, p = initial(2, state=8, dt_min=0.05, dt_max=0.1)
  coarse = RNG.normal(size=(1, t, 2)).astype(np.float32)
  dt, lam, P, B, C = continuous(p)
  x = np.zeros((2, 8), complex)
  expected = np.zeros((t, 2))
  for i in range(2):
    A = np.diag(both(lam[i])) - np.outer(both(P[i]), both(P[i]).conj())
    for k in range(t):
      slope = lambda z: A @ z + both(B[i]) * coarse[0, k, i]  # noqa: B023
      for _ in range(fine):
        s = dt[i] / fine
        k1 = slope(x[i])
        k2 = slope(x[i] + s / 2 * k1)
        k3 = slope(x[i] + s / 2 * k2)
        x[i] = x[i] + s / 6 * (k1 + 2 * k2 + 2 * k3 + slope(x[i] + s * k3))
      expected[k, i] = (both(C[i]) @ x[i]).real + p["D"][i] * coarse[0, k, i]
  params, u = {"params": p}, jnp.asarray(np.repeat(coarse, fine, axis=1))
  module = module.clone(step_rescale=1 / fine)
  convolved = run(module, params, u)
  resumed, last = run(module, params, u, module.init_state(1, 1), method="prefill")
  one_by_one, states = stepped(module, params, u, module.init_state(1, 1))
  np.testing.assert_allclose(resumed, convolved, atol=3e-5)
  np.testing.assert_allclose(one_by_one, convolved, atol=3e-5)
  np.testing.assert_allclose(states[-1].h, last.h, atol=3e-5)
  room = 3e-3 * np.abs(expected).max()
  np.testing.assert_allclose(convolved[0, fine - 1 :: fine], expected, atol=room)
  # the same parameters at half the rate, by a kernel of twice the step
  half = run(module.clone(step_rescale=2 / fine), params, u[:, ::2])
  np.testing.assert_allclose(half[0, fine // 2 - 1 :: fine // 2], expected, atol=2 * room)


@pytest.mark.parametrize(
  "measure, l", [("legs", 32), ("fout", 15), *(pytest.param("legs", l, marks=pytest.mark.slow) for l in (1, 2, 15))]
)
def test_kernel_is_finite_at_every_root_of_unity(measure, l):
  """w = -1 is among those of even l; the taps are the powers' and their gradients finite."""
  dt, lam, P, B, C = continuous(initial(3, state=16, A_init=measure)[1])
  expected = np.zeros((3, l))
  for i in range(3):
    A = dt[i] / 2 * (np.diag(both(lam[i])) - np.outer(both(P[i]), both(P[i]).conj()))
    h = np.linalg.solve(np.eye(16) - A, dt[i] * both(B[i]))
    for lag in range(l):
      expected[i, lag] = (both(C[i]) @ h).real
      h = np.linalg.solve(np.eye(16) - A, (np.eye(16) + A) @ h)
  with jax.enable_x64(True):
    given = [jnp.asarray(z) for z in (dt, lam, P, B, C)]
    taps = jax.jit(dplr.taps, static_argnums=5)
    np.testing.assert_allclose(taps(*given, l), expected, atol=1e-12)
    slopes = jax.jit(jax.grad(lambda *z: jnp.sum(jnp.sin(dplr.taps(*z, l))), argnums=(0, 1, 2, 3, 4)))(*given)
    assert all(np.isfinite(slope).all() for slope in slopes)


def test_kernel_in_float32_is_that_of_float64_over_4096_tokens():
  """At 64 states and steps from 1e-3 to 0.1, relative to the largest tap of each channel."""
  p = initial(16)[1]
  with jax.enable_x64(True):
    single, double = (
      np.asarray(jax.jit(dplr.taps, static_argnums=5)(*(jnp.asarray(z, kind(z)) for z in continuous(p)), 4096))
      for kind in (
        lambda z: np.complex64 if np.iscomplexobj(z) else np.float32,
        lambda z: np.complex128 if np.iscomplexobj(z) else np.float64,
      )
    )
  assert (single.dtype, double.dtype) == (np.float32, np.float64)
  error = np.abs(single - double).max(axis=1) / np.abs(double).max(axis=1)
  assert error.max() < 1e-4, error


@pytest.mark.parametrize("l", [16, 50])
def test_the_c_that_the_authors_code_stores_becomes_ours(l):
  """C (I - Abar^l) and l, from dense powers, give C back, and with it the taps beyond l."""
  dt, lam, P, _, C = continuous(initial(3, state=8, dt_min=0.01)[1])
  stored = []
  for i in range(3):
    A = dt[i] / 2 * (np.diag(both(lam[i])) - np.outer(both(P[i]), both(P[i]).conj()))
    row = both(C[i])
    for _ in range(l):
      row = np.linalg.solve((np.eye(8) - A).T, (np.eye(8) + A).T @ row)
    stored.append(C[i] - row[:4])
  np.testing.assert_allclose(dplr.uncut(np.stack(stored), l, dt, lam, P), C, atol=1e-10)


def test_no_step_grows_however_large_the_low_rank_term():
  """||Abar|| <= 1, as A + A* is negative."""
  with jax.enable_x64(True):
    lam, P, _ = (jnp.asarray(z) for z in hippo.dplr("legs", 16))
    E = jax.jit(dplr.transition)(jnp.array([0.01, 1.0]), jnp.stack([lam, lam]), jnp.concatenate([3 * P, 30 * P]))
  assert np.linalg.norm(np.eye(16) + np.asarray(E), ord=2, axis=(1, 2)).max() < 1 + 1e-10


@pytest.mark.parametrize("l", [1, 2, 7, 64, 100])
def test_dense_powers_equal_repeated_products(l):
  E = jnp.asarray(0.1 * RNG.normal(size=(2, 4, 4)) - 0.3 * np.eye(4), jnp.float32)
  B, C = (jnp.asarray(RNG.normal(size=(2, 4)), jnp.float32) for _ in range(2))
  D = jnp.array([1.0, -2.0])
  A = np.eye(4) + np.asarray(E, float)
  powers = [np.eye(4) + 0 * A]
  for _ in range(l):
    powers.append(powers[-1] @ A)
  np.testing.assert_allclose(dense.power(E, l), powers[l] - np.eye(4), atol=1e-5)
  rows = np.stack([np.einsum("en,enm->em", C, power) for power in powers[:l]], axis=1)
  np.testing.assert_allclose(dense.rows(C, E, l), rows, atol=1e-5)
  np.testing.assert_allclose(dense.change_of_row(C, E, l), np.einsum("en,enm->em", C, powers[l]) - C, atol=1e-5)
  taps = np.einsum("eln,en->el", rows, B) + np.outer(D, np.arange(l) == 0)
  np.testing.assert_allclose(dense.taps(dense.Recurrence(E, B, C, D), l), taps, atol=1e-5)


@pytest.mark.slow
def test_training_never_writes_all_states_down():
  """Less than half of what b t e n states take, backwards too."""
  b, t, e, n = 4, 2048, 8, 64
  module = S4(width=e, state=n, activation="none")
  x = jax.ShapeDtypeStruct((b, t, e), jnp.float32)
  variables = jax.eval_shape(module.init, jax.random.key(0), x)
  loss = jax.grad(lambda v, x: module.apply(v, x).sum())
  used = jax.jit(loss).lower(nn.unbox(variables), x).compile().memory_analysis().temp_size_in_bytes
  assert used < b * t * e * n * 4 / 2, used


def test_initial_values():
  for measure in ("legs", "fout"):
    _, p = initial(256, state=8, A_init=measure)
    lam, P, B = hippo.dplr(measure, 8)
    _, got_lam, got_P, got_B, C = continuous(p)
    np.testing.assert_allclose(got_lam.imag, np.tile(lam.imag, (256, 1)), rtol=1e-6)
    np.testing.assert_allclose(got_lam.real, -0.5 if measure == "legs" else -1e-4, rtol=1e-5)
    np.testing.assert_allclose(got_P, np.tile(P, (256, 1)), atol=1e-6)
    np.testing.assert_allclose(got_B[3], B.real + 1j * np.clip(B.imag, -2, 2), atol=1e-6)
    np.testing.assert_allclose(np.mean(np.abs(C) ** 2), 1, rtol=0.1)
    np.testing.assert_allclose(np.mean(p["D"] ** 2), 1, rtol=0.25)
    np.testing.assert_allclose(np.log10(np.quantile(np.exp(p["log_dt"]), [0, 0.5, 1])), [-3, -2, -1], atol=0.2)


def test_shared_copies_have_one_a_p_and_b():
  _, p = initial(6, state=4, copies=2)
  assert {p[f"{name}_{part}"].shape for name in "PB" for part in ("re", "im")} == {(2, 2)}
  assert p["A_log"].shape == (2, 2)
  assert p["C_re"].shape == (6, 2)
