"""Liquid-S4: its relation to S4D, and its products."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssm.lti.liquid_s4 import LiquidS4
from ssm.lti.s4d import S4D


def initial(module):
  return nn.unbox(jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 1, module.width))))["params"]


def test_degree_one_is_s4d():
  module, s4d = (cls(width=4, state=8, disc="bilinear", activation="none") for cls in (LiquidS4, S4D))
  module = module.clone(degree=1)
  p = initial(module)
  x = jax.random.normal(jax.random.key(1), (2, 30, 4))
  y = jax.jit(s4d.apply)({"params": p["ssm"]}, x)
  np.testing.assert_allclose(jax.jit(module.apply)({"params": p}, x), y, atol=1e-6)


def test_each_degree_adds_a_product_of_so_many_neighbours():
  """A third input of 0 leaves products of two, and the difference scales with the power of the input."""
  p = initial(LiquidS4(width=4, state=8, activation="none"))
  out = lambda degree, x: jax.jit(LiquidS4(width=4, state=8, degree=degree, activation="none").apply)({"params": p}, x)
  x = jax.random.normal(jax.random.key(1), (1, 20, 4)).at[:, 2::3].set(0)
  for degree in (2, 3):
    added = out(degree, x) - out(degree - 1, x)
    doubled = out(degree, 2 * x) - out(degree - 1, 2 * x)
    assert (np.abs(added).max() > 1e-4) == (degree == 2)
    np.testing.assert_allclose(doubled, 2**degree * added, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize(
  "kwargs, reason",
  [
    (dict(degree=0), "LiquidS4: degree=0; it must be at least 1"),
    (dict(activation="relu"), "LiquidS4: activation='relu'; choose from"),
    (dict(state=7), "state=7; conjugate pairs are stored once"),
    (dict(copies=3), "copies=3 does not divide width=8"),
    (dict(disc="euler"), "disc='euler'; choose from"),
  ],
)
def test_what_does_not_fit_is_named_when_the_model_is_built(kwargs, reason):
  with pytest.raises(ValueError, match=reason):
    LiquidS4(width=8, **kwargs)
