"""The Linear Transformer's initial values, and its recurrence beside the quadratic form."""

import jax
import jax.numpy as jnp
import numpy as np

from attention.efficient.linear_transformer import LinearTransformer, phi
from tests.initial import initial, uniform
from tests.kernels import dual_of_ssd
from tests.stepped import stepped

SMALL = {"": dict(heads=2), "full": dict(heads=2, mask="full", bias=True)}
ORACLE = {"": dict(heads=2), "full": dict(heads=4, mask="full", eps=0.1, bias=True)}
REFUSED = [
  (dict(heads=3), "heads=3 does not divide width=8"),
  (dict(heads=0), "heads=0; it must be at least 1"),
  (dict(mask="both"), "mask='both'; choose from"),
  (dict(eps=-1.0), "eps=-1.0; it must not be negative"),
]
# Uniform as Glorot has it.
MAPS = "qkv/q_proj qkv/k_proj qkv/v_proj qkv/out_proj"
BIASES = "qkv/q_proj/bias qkv/k_proj/bias qkv/v_proj/bias qkv/out_proj/bias"
INITIAL = [(dict(width=64, bias=True), {MAPS: uniform((6 / 128) ** 0.5), BIASES: np.zeros(64)})]


def count(d, bias=False, **_):
  """Queries, keys, values and out."""
  return 4 * d * (d + bias)


X = jax.random.normal(jax.random.key(1), (2, 12, 8))


def test_the_recurrence_is_attention_with_other_weights():
  """Steps, one after the other, beside a masked matrix of all weights: `ssd`'s dual without decay."""
  module = LinearTransformer(width=8, heads=2)
  variables = {"params": initial(module)}
  outputs, states = stepped(module, variables, X, module.init_state(2, 12))

  @jax.jit
  def quadratic(variables):
    q, k, v = module.bind(variables).qkv(X)
    one = jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1)
    S = jnp.zeros((2, 2, 4, 5))
    y, S = dual_of_ssd.quadratic(phi(q), phi(k), one, jnp.zeros((2, 12, 2)), S, None)
    return module.bind(variables).qkv.out(y[..., :-1] / (y[..., -1:] + 1e-6)), S

  y, S = quadratic(variables)
  np.testing.assert_allclose(outputs, y, atol=1e-5)
  np.testing.assert_allclose(states[-1].S, S, atol=1e-5)


def test_the_last_token_of_the_causal_form_is_the_full_form():
  causal, full = LinearTransformer(width=8, heads=2), LinearTransformer(width=8, heads=2, mask="full")
  variables = {"params": initial(causal)}
  run = lambda module: jax.jit(module.apply)(variables, X)[:, -1]
  np.testing.assert_allclose(run(causal), run(full), atol=1e-5)


def test_its_weights_stay_above_zero():
  x = jnp.array([-80.0, -20.0, -1e-3, 0.0, 3.0])
  np.testing.assert_allclose(phi(x), np.where(np.asarray(x) > 0, x + 1, np.exp(np.asarray(x, np.float64))), rtol=1e-5)
