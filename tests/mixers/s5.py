"""S5: small sizes, parameter count, oracle, refusals; irregular time steps, initial values, training in bfloat16."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ssm.lti import hippo
from ssm.lti.s5 import S5
from tests.initial import variables

# the time before each token
GAPS = {"dt": lambda b, t: 0.1 + np.random.default_rng(0).exponential(size=(b, t))}
SMALL = {"": dict(state=8, blocks=2), "both ways": dict(state=6, bidirectional=True), "gaps": dict(state=8)}
ORACLE = {
  "": dict(state=8, blocks=2),
  "both ways without gaps": dict(state=8, bidirectional=True),
  "both ways": dict(state=3, bidirectional=True, conj_sym=False, C_init="complex_normal", activation="none"),
  "bilinear without pairs": dict(state=6, disc="bilinear", conj_sym=False, activation="full_glu"),
  "gaps": dict(state=8, step_rescale=2.0),
  "half_glu2": dict(state=6, activation="half_glu2"),
}
SIDE = {"both ways": GAPS, "gaps": GAPS}
REFUSED = [
  (dict(state=7), "state=7 in blocks=1 makes blocks of 7; conjugate pairs"),
  (dict(state=8, blocks=3), "blocks=3 does not divide state=8"),
  (dict(state=12, blocks=4), "makes blocks of 3; conjugate pairs"),
  (dict(C_init="zeros"), "C_init='zeros'; choose from ['trunc_standard_normal'"),
  (dict(disc="euler"), "disc='euler'; choose from ['zoh', 'bilinear']"),
  (dict(activation="glu"), "activation='glu'; choose from"),
  (dict(dt_max=1e-4), "dt_min=0.001, dt_max=0.0001"),
  (dict(step_rescale=0.0), "S5: step_rescale=0.0; it must be above 0"),
]
TRAINED = {"slow": {"lam_re", "lam_im", "B_re", "B_im", "log_dt"}}
RNG = np.random.default_rng(0)


def count(d, state, blocks=1, bidirectional=False):
  """lam, dt; B, C for each direction; D; the gate with bias."""
  return state + state // 2 + (2 + bidirectional) * state * d + d + d * (d + 1)


def normal(*shape):
  return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def run(module, variables, *args, method="__call__", **kwargs):
  return jax.jit(functools.partial(module.apply, method=method))(variables, *args, **kwargs)


def initial(width, **kwargs):
  module = S5(width=width, activation="none", **kwargs)
  return module, {"params": jax.tree.map(np.asarray, variables(module)["params"])}


def test_both_halves_of_C_start_alike_and_apart():
  p = initial(64, state=32, bidirectional=True)[1]["params"]
  forward, back = np.split(p["C_re"] + 1j * p["C_im"], 2, axis=1)
  # the real and the imaginary part of G each have variance 1/P, and so do sums with the orthonormal columns of V
  np.testing.assert_allclose([np.mean(np.abs(z) ** 2) for z in (forward, back)], 2 / 32, rtol=0.15)
  assert np.abs(np.mean(forward * back.conj())) < 0.2 * 2 / 32


def test_a_long_step_is_many_short_ones_of_the_same_input():
  """Zero-order hold is exact: an input that stands for 3.5 samples may come in pieces."""
  module, variables = initial(4, state=8)
  state = module.init_state(1, 8)._replace(h=jnp.ones((1, 4), complex))
  x = jnp.repeat(normal(1, 1, 4), 4, axis=1)
  prefill = lambda x, dt: run(module, variables, x, state, side={"dt": jnp.asarray(dt)[None]}, method="prefill")
  y_many, many = prefill(x, [0.5, 0.25, 2.0, 0.75])
  y_one, one = prefill(x[:, :1], [3.5])
  np.testing.assert_allclose(many.h, one.h, atol=1e-6)
  np.testing.assert_allclose(y_many[:, -1], y_one[:, -1], atol=1e-6)
  # and a step takes its own gap
  _, stepped = run(module, variables, x[:, 0], state, side={"dt": jnp.array([3.5])}, method="step")
  np.testing.assert_allclose(stepped.h, one.h, atol=1e-6)


def test_clipped_eigenvalues_do_not_grow():
  module, variables = initial(4, state=8, clip_eigs=True)
  variables["params"]["lam_re"] = np.full(4, 0.3, np.float32)
  _, state = run(module, variables, normal(1, 200, 4), module.init_state(1, 200), method="prefill")
  assert np.abs(state.h).max() < 1e3


def test_initial_values():
  """Blocks of LegS; Var B = 1/P, Var C = 1/P, 1/(HP) or 1/2 a part, as the authors' code has them."""
  P, H = 64, 200
  _, v = initial(H, state=P, blocks=4)
  p = v["params"]
  np.testing.assert_allclose(p["lam_re"] + 1j * p["lam_im"], np.tile(hippo.legs_normal(16).lam[:8], 4), rtol=1e-6)
  # V* keeps the variance of a real matrix; G V doubles that of one part, as G has two
  np.testing.assert_allclose(np.mean(p["B_re"] ** 2 + p["B_im"] ** 2), 1 / P, rtol=0.05)
  for kind, variance in {"trunc_standard_normal": 2 / P, "lecun_normal": 2 / (H * P), "complex_normal": 1.0}.items():
    p = initial(H, state=P, blocks=4, C_init=kind)[1]["params"]
    np.testing.assert_allclose(np.mean(p["C_re"] ** 2 + p["C_im"] ** 2), variance, rtol=0.05)
  np.testing.assert_allclose(np.mean(p["D"] ** 2), 1, rtol=0.3)
  assert ((np.exp(p["log_dt"]) > 0.99e-3) & (np.exp(p["log_dt"]) < 0.101)).all()


def test_both_parts_of_b_come_from_one_real_matrix():
  _, v = initial(7, state=6, conj_sym=False)
  V = hippo.legs_normal(6).V
  B = v["params"]["B_re"] + 1j * v["params"]["B_im"]
  np.testing.assert_allclose((V @ B).imag, 0, atol=1e-6)


def test_a_training_step_runs_in_bfloat16():
  """On one CPU device, whose XLA cannot multiply every layout of bfloat16 into float32."""
  module, x = S5(width=64), jnp.ones((2, 32, 64), jnp.bfloat16)
  variables = jax.jit(module.init)(jax.random.key(0), x)
  loss = lambda variables, x: jnp.sum(module.apply(variables, x).astype(jnp.float32))
  for gradient in jax.tree.leaves(jax.jit(jax.grad(loss, argnums=(0, 1)))(variables, x)):
    assert jnp.isfinite(gradient).all()
