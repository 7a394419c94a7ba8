"""sLSTM: stable gates, heads that do not mix, and the initial bias of its forget gate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssm.rnn.slstm import SLSTM
from tests.hybrids.filled import filled
from tests.initial import initial

SMALL = {"": dict(heads=2)}
ORACLE = {"": dict(heads=2), "exp": dict(heads=4, forget="exp", taps=2)}
TRAINED = {"undecayed": {"bias"}}
REFUSED = [
  (dict(heads=3), "heads=3 does not divide width=8"),
  (dict(taps=0), "taps=0; it must be at least 1"),
  (dict(forget="linear"), "forget='linear'; choose from ['sigmoid', 'exp']"),
]

D, T = 6, 9
X = jax.random.normal(jax.random.key(1), (2, T, D))


def count(d, heads, taps=4):
  """Convolution with bias; four gates of two maps in blocks, with bias; the norm."""
  return (taps + 1) * d + 4 * (2 * d * d // heads + d) + d


@pytest.mark.parametrize("scale", [300.0, -300.0])
def test_gates_do_not_overflow(scale):
  """exp(300) has no float32: the stabilised state stays finite, in value and gradient, and n is at least 1."""
  module = SLSTM(width=D, heads=2, forget="exp")
  v = filled(module, X)
  v["params"]["bias"] = v["params"]["bias"].at[0].add(scale)

  def loss(v):
    y, state = module.apply(v, X, module.init_state(2, T), method="prefill")
    return jnp.sum(y**2), (y, state)

  gradient, (y, state) = jax.jit(jax.grad(loss, has_aux=True))(v)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((gradient, y, state)))
  assert (state.n >= 1).all()


def test_heads_do_not_mix():
  """R and W are block-diagonal; only the convolution, channel by channel, stands before them."""
  module = SLSTM(width=D, heads=3)
  v = filled(module, X)
  jacobian = jax.jit(jax.jacobian(lambda x: module.apply(v, x[None])[0, -1]))(X[0])  # "d t d"
  by_head = np.abs(jacobian).reshape(3, 2, T, 3, 2).max(axis=(1, 2, 4))
  assert (np.diag(by_head) > 1e-6).all()
  np.testing.assert_array_equal(by_head - np.diag(np.diag(by_head)), 0)


@pytest.mark.parametrize("layer, power", [(0, 0.3), (3, 1.6)])
def test_forgets_along_a_power_law(layer, power):
  """5 - 12 (j / (k-1))^(0.3 + 1.3 place) in every head, other biases and R at zero, W of variance 2 / (5 d)."""
  p = initial(SLSTM(width=64, heads=2, layer=layer, depth=4))
  head = 5 - 12 * (np.arange(32) / 31) ** power
  expected = np.zeros((4, 64))
  expected[1] = np.tile(head, 2)
  np.testing.assert_allclose(p["bias"], expected, atol=1e-5)
  np.testing.assert_array_equal(p["R"], 0)
  np.testing.assert_allclose(np.mean(np.square(p["z_proj"]["kernel"])), 2 / (5 * 64), rtol=0.1)
