"""LSSL: its kernel, its relation to S4, what it learns, initial values."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssm.lti import dense, hippo
from ssm.lti.lssl import LSSL
from ssm.lti.s4 import S4


def initial(module):
  shape = jnp.zeros((1, 1, module.width))
  return nn.unbox(jax.jit(module.init)(jax.random.key(0), shape))["params"]


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_kernel_is_the_dense_krylov_product(alpha):
  module = LSSL(width=3, state=6, alpha=alpha, dt_min=0.01)
  p = initial(module)
  recurrence = jax.jit(functools.partial(module.apply, method="_recurrence"))({"params": p})
  K = jax.jit(dense.taps, static_argnums=1)(recurrence, 50)
  A, dt = np.asarray(p["A"][0], float), np.exp(np.asarray(p["log_dt"], float))
  for i in range(3):
    below = np.linalg.inv(np.eye(6) - alpha * dt[i] * A)
    h = below @ (dt[i] * np.asarray(p["B"][0]))
    for lag in range(50):
      np.testing.assert_allclose(K[i, lag], p["C"][i] @ h + p["D"][i] * (lag == 0), atol=2e-6)
      h = below @ (np.eye(6) + (1 - alpha) * dt[i] * A) @ h


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["legs", "fout"])
def test_lssl_is_s4_on_equal_a_b_c_and_steps(measure):
  """C in the eigenbasis of the normal part is C V; what follows the state space is made the same."""
  width, n = 3, 8
  s4, lssl = S4(width=width, state=n, A_init=measure, activation="gelu"), LSSL(width=width, state=n, A_init=measure)
  with jax.enable_x64(True):
    p, q = (jax.tree.map(lambda leaf: jnp.asarray(leaf, float), initial(module)) for module in (s4, lssl))
    lam, P, B = hippo.dplr(measure, n)
    for name, value in (("P", P[0]), ("B", B)):
      p[f"{name}_re"], p[f"{name}_im"] = (jnp.tile(part, (width, 1)) for part in (value.real, value.imag))
    p["A_im"] = jnp.tile(lam.imag, (width, 1))
    # S4 starts FouT with a little decay, and keeps that of LegS as a logarithm in float32
    shift = np.exp(np.asarray(p["A_log"])[0, 0]) + lam.real[0]
    V = hippo.normal(measure, n).V[:, : n // 2]
    A, B = hippo.MEASURES[measure](n)
    q["A"], q["B"] = jnp.asarray(A - shift * np.eye(n))[None], jnp.asarray(B)[None]
    q["C"] = 2 * ((p["C_re"] + 1j * p["C_im"]) @ V.conj().T).real
    q |= dict(D=p["D"], log_dt=p["log_dt"], out_proj=dict(kernel=jnp.eye(width), bias=jnp.zeros(width)))
    x = jax.random.normal(jax.random.key(1), (2, 60, width), float)
    y = jax.jit(s4.apply)({"params": p}, x)
    assert np.abs(y).max() > 0.5
    np.testing.assert_allclose(jax.jit(lssl.apply)({"params": q}, x), y, atol=1e-8)


def test_what_is_fixed_has_no_parameters():
  p = initial(LSSL(width=4, state=6, learn="output"))
  assert set(p) == {"C", "D", "out_proj"}


def test_initial_values():
  for measure in hippo.MEASURES:
    p = initial(LSSL(width=128, state=6, A_init=measure, copies=2))
    A, B = hippo.MEASURES[measure](6)
    np.testing.assert_allclose(p["A"], np.stack([A, A]), rtol=1e-6)
    np.testing.assert_allclose(p["B"], np.stack([B, B]), rtol=1e-6)
  np.testing.assert_allclose([np.mean(p["C"] ** 2), np.mean(p["D"] ** 2)], 1, rtol=0.25)
  np.testing.assert_allclose(np.log10(np.quantile(np.exp(p["log_dt"]), [0, 0.5, 1])), [-3, -2, -1], atol=0.3)


@pytest.mark.parametrize(
  "kwargs, reason",
  [
    (dict(state=0), "state=0; it must be at least 1"),
    (dict(state=7, A_init="fout"), "state=7; it must be at least 1, and even for A_init='fout'"),
    (dict(A_init="lin"), r"A_init='lin'; choose from \['legs', 'legt', 'lagt', 'fout'\]"),
    (dict(learn="C"), r"learn='C'; choose from \['all', 'output'\]"),
    (dict(alpha=1.5), r"alpha=1.5; it must be in \[0, 1\]"),
    (dict(copies=3), "copies=3 does not divide width=8"),
    (dict(dt_min=0.0), "dt_min=0.0, dt_max=0.1"),
  ],
)
def test_what_does_not_fit_is_named_when_the_model_is_built(kwargs, reason):
  with pytest.raises(ValueError, match=reason):
    LSSL(width=8, **kwargs)
