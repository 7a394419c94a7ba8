"""H3: its shift state space, initial values and sizes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssm.lti.h3 import H3


def initial(module):
  shape = jnp.zeros((1, 1, module.width))
  return nn.unbox(jax.jit(module.init)(jax.random.key(0), shape))["params"]


def test_the_shift_starts_as_a_filter_with_taps_c():
  module = H3(width=6, state=4)
  p = initial(module)
  kernel = jax.jit(lambda v: module.apply(v, method="_shift_kernel"))({"params": p})
  taps = np.asarray(p["shift_C"]).copy()
  taps[:, 0] += p["shift_D"]
  np.testing.assert_allclose(kernel[::-1].T, taps, rtol=1e-6)


def test_the_shift_can_hand_a_key_to_the_token_after_it():
  """With q = v = 1 and a diagonal state space that only passes on, the output is the key one token ago."""
  module = H3(width=2, state=4)
  p = initial(module)
  zero = jax.tree.map(jnp.zeros_like, p)
  one = jnp.eye(2)
  p = zero | dict(
    q_proj=dict(kernel=0 * one, bias=jnp.ones(2)),
    v_proj=dict(kernel=0 * one, bias=jnp.ones(2)),
    k_proj=dict(kernel=one, bias=jnp.zeros(2)),
    out_proj=dict(kernel=one, bias=jnp.zeros(2)),
    shift_B=p["shift_B"],
    shift_C=zero["shift_C"].at[:, 1].set(1.0),
    ssm=zero["ssm"] | dict(D=jnp.ones(2)),
  )
  x = jax.random.normal(jax.random.key(1), (1, 7, 2))
  y = jax.jit(module.apply)({"params": p}, x)
  np.testing.assert_allclose(y, np.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0))), atol=1e-6)


def test_initial_values():
  p = initial(H3(width=128, state=16, head_dim=2))
  np.testing.assert_array_equal(p["shift_B"], np.eye(16)[:1].repeat(128, 0))
  assert 0.24 < np.abs(p["shift_C"]).max() <= 0.25
  np.testing.assert_allclose(np.mean(p["shift_D"] ** 2), 1, rtol=0.3)
  ssm = p["ssm"]
  lam = -np.exp(ssm["A_log"]) + 1j * np.asarray(ssm["A_im"])
  np.testing.assert_allclose(lam, np.tile(-0.5 + 1j * np.pi * np.arange(8), (64, 1)), rtol=1e-5)
  np.testing.assert_allclose(np.mean(ssm["C_re"] ** 2 + ssm["C_im"] ** 2), 1, rtol=0.2)


@pytest.mark.parametrize(
  "kwargs, reason",
  [
    (dict(head_dim=3), "H3: head_dim=3 does not divide width=8"),
    (dict(state=7), "state=7; conjugate pairs are stored once"),
    (dict(A_init="fout"), "A_init='fout'; choose from"),
    (dict(dt_min=0.0), "dt_min=0.0, dt_max=0.1"),
  ],
)
def test_what_does_not_fit_is_named_when_the_model_is_built(kwargs, reason):
  with pytest.raises(ValueError, match=reason):
    H3(width=8, **kwargs)
