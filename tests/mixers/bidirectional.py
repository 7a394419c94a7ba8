"""Bidirectional: small sizes, parameter count, refusals; each row turns within its length, a document within itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids import mixer as mixer_lib
from hybrids.body.stack import Stack
from hybrids.wrap import Bidirectional
from tests import mixers
from tests.hybrids.filled import filled
from tests.hybrids.toys import Decay, Offers

B, T, D = 2, 6, 3
X = jax.random.normal(jax.random.key(3), (B, T, D))
DECAY = dict(name=Decay)
SMALL = {"": dict(mixer=dict(name="mamba", state=4, dt_rank=2))}
ORACLE = {}
REFUSED = [
  (dict(mixer=dict(name="mlp"), merge="add"), "Bidirectional: merge='add'; choose from ['sum', 'concat']"),
  (dict(mixer=dict(name="mlp", tpas=1)), "has no field 'tpas'"),
]
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def count(d, mixer, merge="sum"):
  return 2 * mixers.count(width=d, **mixer) + (merge == "concat") * 2 * d * d


@functools.cache
def fresh(**kwargs):
  module = Bidirectional(width=D, mixer=DECAY, **kwargs)
  return module, filled(module, X)


def one_way(params, x):
  """The toy's equation."""
  h, y = 0, []
  for token in np.asarray(x):
    h = params["a"] * h + token
    y.append(params["scale"] * h)
  return np.stack(y)


def both_ways(params, x):
  """The sum for one document, by the definition."""
  back = one_way(params.get("backward", params["forward"]), x[::-1])[::-1]
  return one_way(params["forward"], x) + back


@pytest.mark.parametrize("shared", [False, True])
def test_the_sum_is_forward_plus_reversed_backward(shared):
  module, variables = fresh(shared=shared)
  assert set(variables["params"]) == {"forward"} | (set() if shared else {"backward"})
  y = jax.jit(module.apply)(variables, X)
  for row in range(B):
    close(y[row], both_ways(variables["params"], X[row]))


def test_rows_turn_within_their_lengths_and_documents_within_themselves():
  module, variables = fresh(shared=False)
  lengths = jnp.array([5, 6])
  reset = jnp.zeros((B, T), bool).at[0, 2].set(True).at[1, 1].set(True).at[1, 4].set(True).at[0, 5].set(True)
  poisoned = X.at[0, 5].set(jnp.nan)
  run = jax.jit(functools.partial(module.apply, reset=reset, lengths=lengths))
  y = run(variables, poisoned)
  params = variables["params"]
  for row, documents in enumerate([[(0, 2), (2, 5)], [(0, 1), (1, 4), (4, 6)]]):
    for start, stop in documents:
      close(y[row, start:stop], both_ways(params, X[row, start:stop]))
  assert (y[0, 5] == 0).all()
  gradient = jax.jit(jax.grad(lambda x: jnp.sum(jnp.square(run(variables, x)))))(poisoned)
  assert np.isfinite(gradient).all()
  assert (gradient[0, 5] == 0).all()


def test_concatenated_directions_are_mapped_back():
  module, variables = fresh(merge="concat")
  params = variables["params"]
  assert params["out_proj"]["kernel"].shape == (2 * D, D)
  y = jax.jit(module.apply)(variables, X[:1])
  ways = [one_way(params["forward"], X[0]), one_way(params["backward"], X[0, ::-1])[::-1]]
  close(y[0], jnp.concatenate(ways, axis=-1) @ params["out_proj"]["kernel"])


def test_side_inputs_turn_too():
  module = Bidirectional(width=D, mixer=dict(name=Offers), shared=True)
  assert module.SIDE == ("first", "given", "first_backward", "given_backward")
  given = jax.random.normal(jax.random.key(4), (B, T, D))
  variables = filled(module, X)
  close(jax.jit(module.apply)(variables, X, side={"given": given}), 2 * (jnp.sin(X) + given))


@pytest.mark.slow
def test_both_directions_of_rwkv7_read_the_values_of_their_first_layer():
  """The second layer's maps that mix in v_first have a gradient in either direction."""
  letters = {"r": dict(name="bidirectional", mixer=dict(name="rwkv7", head_size=2))}
  stack = Stack(width=4, depth=2, pattern="r", letters=letters)
  x = jax.random.normal(jax.random.key(5), (1, 5, 4))
  variables = filled(stack, x)
  slopes = jax.jit(jax.grad(lambda v: jnp.sum(jnp.sin(stack.apply(v, x)))))(variables)
  flat = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(slopes)[0]}
  for way in ("forward", "backward"):
    # the first layer, which has nothing to mix in, is kept apart as '0'
    mixed = [np.abs(z).max() for name, z in flat.items() if "v_lora" in name and way in name and "'0'" not in name]
    assert mixed
    assert min(mixed) > 0


def test_what_the_first_layer_offers_backwards_is_turned_for_the_second():
  mixer = dict(name=Offers)
  module = Bidirectional(width=D, mixer=mixer)
  variables = filled(module, X)
  offered = module.apply(variables, X, None, lengths=jnp.array([4, 6]), method="offer")
  for way, name in (("forward", "first"), ("backward", "first_backward")):
    close(offered[name], variables["params"][way]["key"] * X)
  assert not mixer_lib.build("bidirectional", width=D, mixer=DECAY).OFFERS
