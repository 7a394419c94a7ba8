"""LFM2's gated short convolution: how far it sees, and that it is a product of three."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from ssm.lti.gated_conv import GatedConv

D, T = 4, 9
X = jax.random.normal(jax.random.key(1), (1, T, D))


def initial(**kwargs):
  module = GatedConv(width=D, **kwargs)
  return module, nn.unbox(jax.jit(module.init)(jax.random.key(0), X))


@pytest.mark.parametrize("taps", [1, 3])
def test_it_sees_its_taps_and_no_more(taps):
  module, v = initial(taps=taps)
  jacobian = jax.jit(jax.jacobian(lambda x: module.apply(v, x[None])[0]))(X[0])  # "t d t d"
  seen = np.abs(jacobian).max(axis=(1, 3)) > 0
  lag = np.arange(T)[:, None] - np.arange(T)
  np.testing.assert_array_equal(seen, (lag >= 0) & (lag < taps))


def test_without_biases_it_is_cubic():
  module, v = initial()
  apply = jax.jit(module.apply)
  np.testing.assert_allclose(apply(v, 2 * X), 8 * apply(v, X), rtol=1e-5, atol=1e-7)


def test_initial_values():
  p = nn.unbox(GatedConv(width=64).init(jax.random.key(0), X.repeat(16, axis=-1)))["params"]
  np.testing.assert_allclose(np.mean(np.square(p["in_proj"]["kernel"])), 1 / 64, rtol=0.1)
  np.testing.assert_allclose(np.mean(np.square(p["out_proj"]["kernel"])), 1 / 64, rtol=0.1)
  np.testing.assert_allclose(np.abs(p["conv"]["kernel"]).max(), 3**-0.5, rtol=0.05)


def test_taps_below_one_are_refused():
  with pytest.raises(ValueError, match="taps=0; it must be at least 1"):
    GatedConv(width=8, taps=0)
