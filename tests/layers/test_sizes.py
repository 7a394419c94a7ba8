"""Sizes that are a factor of others are rounded, not cut off."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from hybrids import mixer as mixer_lib
from layers.positions import turned
from layers.sizes import at_least_one, scaled
from tests.refused import refused


def test_a_quotient_of_two_sizes_gives_the_size_back():
  wrong = [(size, whole) for whole in range(1, 200) for size in range(1, 400) if scaled(size / whole, whole) != size]
  assert not wrong
  assert int(120 / 88 * 88) == 119
  assert turned(88, 60 / 88) == 60


@pytest.mark.parametrize(
  "name, fields",
  [
    ("delta_net", dict(heads=4, expand_v=120 / 88)),
    ("gla", dict(heads=4, expand_v=120 / 88)),
    ("retnet", dict(heads=4, expand_v=120 / 88)),
    ("mlstm", dict(heads=4, expand=120 / 88)),
    ("mlstm_large", dict(heads=4, qk_factor=120 / 88)),
    ("gated_delta_net", dict(heads=1, head_size=88, expand_v=120 / 88)),
    ("kda", dict(heads=1, head_size=88, expand_v=120 / 88)),
    ("mlp", dict(expand=120 / 88)),
  ],
)
def test_a_mixer_has_the_size_that_its_factor_means(name, fields):
  mixer = mixer_lib.build(name, width=88, **fields)
  params = jax.eval_shape(mixer.init, jax.random.key(0), jnp.zeros((1, 1, 88)))
  sizes = {size for leaf in jax.tree.leaves(params) for size in leaf.shape}
  assert 120 in sizes
  assert not sizes & {119, 238}


def test_a_size_that_no_index_reaches_is_refused():
  at_least_one(SimpleNamespace(window=2**31 - 1), "window")
  refused("window=2147483648; it must be below 2", at_least_one, SimpleNamespace(window=2**31), "window")
