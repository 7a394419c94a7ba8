"""What the first layer offers reaches the later ones through every wrapper, for each of its mixers by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids import mixer as mixer_lib
from hybrids.body.stack import Stack
from tests.hybrids.filled import filled
from tests.hybrids.toys import Decay, Offers

D = 4
X = jax.random.normal(jax.random.key(3), (2, 6, D))
INNER = dict(name=Offers)
WRAPPERS = {
  "parallel": (dict(branches=(dict(name=Decay), INNER, dict(mixer=INNER, norm_position="pre"))), 2),
  "image_scan": (dict(mixer=INNER, orders=("row", "column", "column_reversed"), rows=2, columns=3), 3),
  "hyper_connection": (dict(mixer=INNER, streams=2), 1),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_the_second_layer_mixes_in_what_the_first_one_offers(name):
  fields, mixers = WRAPPERS[name]
  stack = Stack(width=D, depth=2, pattern="w", letters={"w": dict(name=name, **fields)})
  variables = filled(stack, X)
  slopes = jax.jit(jax.grad(lambda v: jnp.sum(jnp.sin(stack.apply(v, X)))))(variables)
  flat = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(slopes)[0]}
  mixed = {key: np.abs(leaf).max() for key, leaf in flat.items() if "'mix'" in key}
  assert len(mixed) == mixers
  assert min(mixed.values()) > 0
  # each reads its own: the factors of all of the first layer's offers count
  keys = [np.abs(leaf).max() for key, leaf in flat.items() if "'key'" in key and "'0'" in key]
  assert sum(size > 0 for size in keys) == mixers


def test_offers_along_a_path_come_in_the_order_of_the_tokens():
  module = mixer_lib.build("image_scan", width=D, **WRAPPERS["image_scan"][0])
  variables = filled(module, X)
  offered = module.apply(variables, X, None, method="offer")
  assert sorted(offered) == ["first", "first_1", "first_2"]
  for i, name in enumerate(sorted(offered)):
    np.testing.assert_allclose(offered[name], variables["params"][f"paths_{i}"]["key"] * X, rtol=1e-6)
