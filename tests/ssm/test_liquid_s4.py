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


@pytest.mark.parametrize("kwargs", [{}, dict(kernel="kb"), dict(form="official")])
def test_degree_one_is_s4d(kwargs):
  module, s4d = (cls(width=4, state=8, disc="bilinear", activation="none") for cls in (LiquidS4, S4D))
  module = module.clone(degree=1, **kwargs)
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


def test_products_last_in_kb_and_not_in_pb():
  """A pair of inputs, then silence: the square of its effect on S4D, or nothing."""
  p = initial(LiquidS4(width=4, state=8, activation="none"))
  x = jnp.zeros((1, 20, 4)).at[:, 3:5].set(1.0)
  run = lambda **kwargs: jax.jit(LiquidS4(width=4, state=8, activation="none", **kwargs).apply)({"params": p}, x)
  added = {kernel: np.abs(run(kernel=kernel) - run(degree=1))[0].max(axis=1) for kernel in ("pb", "kb")}
  assert added["pb"][4] > 1e-4
  np.testing.assert_allclose(added["kb"][4], added["pb"][4], rtol=1e-3)
  assert added["pb"][5:].max() < 1e-6
  assert added["kb"][5:].min() > 1e-6


@pytest.mark.slow
def test_the_official_form_reads_pairs_from_the_end():
  """The last two inputs at the first place, the last and third to last at the next, and so on."""
  module = LiquidS4(width=1, state=4, form="official", activation="none")
  p = initial(module)
  x = jnp.arange(1.0, 9.0)[None, :, None]
  one_way = LiquidS4(width=1, state=4, degree=1, activation="none")
  added = (module.apply({"params": p}, x) - one_way.apply({"params": p}, x))[0, :, 0]
  pairs = np.array([7 * 8, 6 * 8, 6 * 7, 5 * 8, 5 * 7, 5 * 6, 4 * 8, 4 * 7])
  np.testing.assert_allclose(added / added[0], pairs / pairs[0], rtol=1e-2)


def test_the_official_form_has_no_state():
  module = LiquidS4(width=4, form="official")
  assert module.STATE == "none"
  with pytest.raises(ValueError, match="LiquidS4: form='official' sees later tokens, so it has no state"):
    module.init_state(1, 4)


@pytest.mark.parametrize(
  "kwargs, reason",
  [
    (dict(degree=0), "LiquidS4: degree=0; it must be at least 1"),
    (dict(kernel="polyb"), r"LiquidS4: kernel='polyb'; choose from \['pb', 'kb'\]"),
    (dict(form="both"), r"LiquidS4: form='both'; choose from \['causal', 'official'\]"),
    (dict(kernel="kb", form="official"), "LiquidS4: kernel='kb' has no form='official'"),
    (dict(activation="relu"), "LiquidS4: activation='relu'; choose from"),
    (dict(state=7), "state=7; conjugate pairs are stored once"),
    (dict(copies=3), "copies=3 does not divide width=8"),
    (dict(disc="euler"), "disc='euler'; choose from"),
  ],
)
def test_what_does_not_fit_is_named_when_the_model_is_built(kwargs, reason):
  with pytest.raises(ValueError, match=reason):
    LiquidS4(width=8, **kwargs)
