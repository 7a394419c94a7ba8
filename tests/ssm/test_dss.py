"""DSS and GSS: their relation to S4D, initial values and sizes."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssm.lti import hippo
from ssm.lti.dss import DSS
from ssm.lti.gss import GSS
from ssm.lti.s4d import S4D
from tests.oracles import dss as oracle


def run(module, params, x):
  return jax.jit(functools.partial(module.apply))({"params": params}, x)


def initial(module):
  shape = jnp.zeros((1, 1, module.width))
  params = nn.unbox(jax.jit(module.init)(jax.random.key(0), shape))["params"]
  return {name: value if isinstance(value, dict) else np.asarray(value) for name, value in params.items()}


def test_dss_with_one_step_per_channel_is_s4d_by_zero_order_hold():
  """With B = 1 and half of C, as S4D adds the conjugates."""
  dss = DSS(width=4, state=5, activation="none")
  p = initial(dss)
  p["log_dt"] = np.repeat(p["log_dt"][:, :1], 2, axis=1)
  x = jax.random.normal(jax.random.key(1), (2, 40, 4))
  one = np.ones((4, 5), np.float32)
  q = dict(
    A_log=one * p["lam_log"],
    A_im=one * p["lam_im"],
    B_re=one,
    B_im=0 * one,
    C_re=p["C_re"] / 2,
    C_im=p["C_im"] / 2,
    D=p["D"],
    log_dt=p["log_dt"][:, 0],
  )
  y = run(S4D(width=4, state=10, activation="none"), q, x)
  np.testing.assert_allclose(run(dss, p, x), y, atol=1e-5)
  # and the second step is one of its own
  p["log_dt"][:, 1] += 0.5
  assert np.abs(run(dss, p, x) - y).max() > 0.01


def test_initial_values_of_dss():
  p = initial(DSS(width=512, state=8, activation="none"))
  lam = -np.exp(p["lam_log"]) + 1j * p["lam_im"]
  # of the sixteen eigenvalues of LegS's normal part the upper half, the fastest first
  np.testing.assert_allclose(lam, hippo.legs_normal(16).lam[:8].conj(), rtol=1e-6)
  np.testing.assert_allclose([np.mean(p["C_re"] ** 2), np.mean(p["C_im"] ** 2), np.mean(p["D"] ** 2)], 1, rtol=0.2)
  assert p["log_dt"].shape == (512, 2)
  quantiles = np.quantile(np.exp(p["log_dt"]), [0, 0.5, 1], axis=0).T
  np.testing.assert_allclose(np.log10(quantiles), [[-3, -2, -1]] * 2, atol=0.15)


def softmax(state, max_len, lam_re):
  """A DSS-softmax of two channels with these real parts, as a function of how many taps are wanted; and its values."""
  module = DSS(width=2, state=state, kernel="softmax", max_len=max_len, activation="none")
  p = initial(module) | {"lam_re": np.asarray(lam_re, np.float32), "D": np.zeros(2, np.float32)}
  return lambda l: np.asarray(module.apply({"params": p}, l, method="_taps")), p


def test_the_taps_of_each_mode_are_a_softmax_times_its_weight():
  """They add up to Re(C / lam), whichever way they lean; a mode that grows is largest at the last lag."""
  taps, p = softmax(1, 50, [-0.5])
  weight = ((p["C_re"] + 1j * p["C_im"]) / (p["lam_re"] + 1j * p["lam_im"])).real[:, 0]
  np.testing.assert_allclose(taps(50).sum(axis=1), weight, rtol=1e-4, atol=1e-6)
  taps, p = softmax(1, 50, [60.0])
  weight = ((p["C_re"] + 1j * p["C_im"]) / (p["lam_re"] + 1j * p["lam_im"])).real[:, 0]
  np.testing.assert_allclose(taps(50).sum(axis=1), weight, rtol=1e-4, atol=1e-6)
  assert (np.abs(taps(50)).argmax(axis=1) > 25).all()


@pytest.mark.slow
@pytest.mark.parametrize("max_len", [1, 40, 4096])
def test_modes_that_grow_and_modes_that_decay_are_the_papers(max_len):
  """In float32, where e^{z L} alone overflows."""
  taps, p = softmax(4, max_len, [-0.5, 3.0, -40.0, 8.0])
  C, dt = (p["C_re"] + 1j * p["C_im"]).astype(complex), np.exp(p["log_dt"].astype(float))
  K = oracle.softmax_kernel({name: np.asarray(value, float) for name, value in p.items()}, C, dt, max_len, max_len)
  np.testing.assert_allclose(taps(max_len), K.T, atol=1e-3 * np.abs(K).max())
  np.testing.assert_allclose(taps(max_len)[:, : max_len // 2], taps(max_len // 2 or 1)[:, : max_len // 2], atol=1e-5)


def test_softmax_over_more_lags_than_modes_last_is_exp():
  """With C turned around: 1/sum_l e^{z l} = 1 - e^z, where e^{z L} is gone."""
  softmax = DSS(width=4, state=3, kernel="softmax", dt_min=0.05, activation="none")
  p = initial(softmax)
  x = jax.random.normal(jax.random.key(1), (1, 30, 4))
  q = p | {"lam_log": np.log(-p["lam_re"]), "C_re": -p["C_re"], "C_im": -p["C_im"]}
  del q["lam_re"]
  exp = DSS(width=4, state=3, activation="none")
  np.testing.assert_allclose(run(softmax, p, x), run(exp, q, x), rtol=1e-3, atol=1e-4)


def test_a_softmax_kernel_ends_at_its_length():
  module = DSS(width=2, kernel="softmax", max_len=16)
  with pytest.raises(ValueError, match="DSS: 17 tokens, but it was built for max_len=16"):
    jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 17, 2)))
  with pytest.raises(ValueError, match="DSS: 17 tokens"):
    module.init_state(1, 17)


def test_initial_values_and_sizes_of_gss():
  p = initial(GSS(width=64))
  assert p["C_re"].shape == (16, 512)
  assert {name: p[name]["kernel"].shape for name in ("v_proj", "u_proj", "y_proj", "out_proj")} == {
    "v_proj": (64, 256),
    "u_proj": (64, 16),
    "y_proj": (16, 256),
    "out_proj": (256, 64),
  }
  np.testing.assert_allclose([np.mean(p["C_re"] ** 2), np.mean(p["C_im"] ** 2)], 1 / 512, rtol=0.1)
  np.testing.assert_allclose([np.mean(p["lam_log"] ** 2), np.mean(p["lam_im_log"] ** 2)], 1, rtol=0.2)


@pytest.mark.parametrize(
  "mixer, kwargs, reason",
  [
    (DSS, dict(state=0), "DSS: state=0; it must be at least 1"),
    (DSS, dict(activation="relu"), "DSS: activation='relu'; choose from"),
    (DSS, dict(kernel="clip"), r"DSS: kernel='clip'; choose from \['exp', 'softmax'\]"),
    (DSS, dict(kernel="softmax", max_len=0), "DSS: max_len=0; it must be at least 1"),
    (DSS, dict(dt_max=1e-4), "dt_min=0.001, dt_max=0.0001"),
    (GSS, dict(inner=0), "GSS: inner=0; it must be at least 1"),
    (GSS, dict(outer=-4), "GSS: outer=-4"),
    (GSS, dict(state=0), "GSS: state=0"),
  ],
)
def test_what_does_not_fit_is_named_when_the_model_is_built(mixer, kwargs, reason):
  with pytest.raises(ValueError, match=reason):
    mixer(width=8, **kwargs)
