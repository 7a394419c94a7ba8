"""RG-LRU: both initialisations, the first token, gradients at a decay of 1, and the sizes of published blocks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssm.selective.rglru import RGLRU
from tests.initial import made, normal

SMALL = {"": dict(inner=12, heads=3)}
ORACLE = {"": dict(inner=12, heads=3)}
TRAINED = {"slow": {"a_param"}}
REFUSED = [
  (dict(heads=3), "heads=3 does not divide inner=8"),
  (dict(inner=0), "inner=0; it must be at least 1"),
  (dict(taps=0), "taps=0; it must be at least 1"),
  (dict(a_init="griffin"), "a_init='griffin'; choose from ['paper', 'recurrentgemma']"),
  (dict(r_min=1.0), "r_min=1.0, r_max=0.999: a ring needs"),
]
# Fan-in of the whole input for the dense maps, of a block for the gates; a convolution near zero.
INITIAL = [
  (
    dict(width=200, inner=400, heads=4, depth=16),
    {
      "x_proj y_proj": normal(200**-0.5),
      "out_proj": normal(0.5 * 400**-0.5),
      "a_gate": normal(0.1),
      "conv": normal(0.05),
      "x_proj/bias y_proj/bias out_proj/bias a_gate/bias conv/bias": 0,
    },
  )
]


def count(d, inner, heads):
  """Three maps with bias; convolution with bias; two gates in blocks, with bias; a."""
  return 3 * d * inner + 2 * inner + d + 5 * inner + 2 * (inner**2 // heads + inner) + inner


initial = functools.partial(made, RGLRU)


@pytest.mark.slow
@pytest.mark.parametrize("init, low, high", [("paper", 0.9, 0.999), ("recurrentgemma", 0.430, 0.992)])
def test_decay_starts_in_the_ring_of_its_initialisation(init, low, high):
  """a_t at r_t = 1; the draws cover the area of the ring evenly."""
  _, v = initial(2, inner=5000, heads=1000, a_init=init)
  a = np.exp(-8 * np.log1p(np.exp(np.asarray(v["params"]["a_param"], float))))
  np.testing.assert_allclose([a.min(), a.max()], [low, high], atol=1e-3)
  radius = a if init == "paper" else a ** (1 / 8)
  area = (np.sort(radius) ** 2 - 0.9**2) / (0.999**2 - 0.9**2)
  np.testing.assert_allclose(area, (np.arange(5000) + 0.5) / 5000, atol=0.03)


def test_the_first_token_of_a_document_enters_with_factor_1():
  """With an open input gate the state is u itself, not sqrt(1 - a^2) u, at the start and after a reset alone."""
  module, v = initial(4, heads=1, taps=1)
  p = v["params"]
  p["conv"]["kernel"], p["x_proj"]["kernel"] = jnp.ones((1, 4)), jnp.eye(4)
  p["input_gate"]["bias"] = jnp.full(4, 50.0)
  x, empty = jnp.ones((1, 1, 4)), module.init_state(1, 4)
  prefill = jax.jit(lambda state, reset: module.apply(v, x, state, reset=reset, method="prefill")[1])
  no, yes = jnp.zeros((1, 1), bool), jnp.ones((1, 1), bool)
  after = prefill(empty, no)
  np.testing.assert_allclose(after.h, 1.0, rtol=1e-6)
  np.testing.assert_allclose(prefill(after, yes).h, 1.0, rtol=1e-6)
  # a token after another enters with a smaller factor, even from a state of 0
  assert (prefill(after._replace(h=jnp.zeros((1, 4))), no).h < 0.6).all()


def test_gradients_are_finite_where_nothing_is_forgotten():
  """a_t = 1, where sqrt(1 - a_t^2) has an infinite slope."""
  module, v = initial(4)
  v["params"]["a_param"] = jnp.full(4, -200.0)
  x = jax.random.normal(jax.random.key(1), (1, 5, 4))
  gradient = jax.jit(jax.grad(lambda v: jnp.sum(module.apply(v, x) ** 2)))(v)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("width, inner, heads", [(2560, None, 10), (4096, 5632, 32)])
def test_published_sizes(width, inner, heads):
  """The recurrent blocks of RecurrentGemma 2b and of Griffin 7b: 3 d e + 2 e^2 / heads, and vectors."""
  module = RGLRU(width=width, inner=inner, heads=heads)
  shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 1, width)))
  e = inner or width
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 3 * width * e + 2 * e**2 // heads + 10 * e + width
