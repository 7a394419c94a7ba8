"""Multi-head latent attention: what is cached, and that attending to latents is attending to keys and values."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention.mla import MLA
from tests.initial import variables
from tests.stepped import stepped

SMALL = {"": dict(heads=2, rank=5, q_rank=6, head_size=3, rope_size=4, value_size=5, gate="head")}
ORACLE = {
  "": dict(heads=2, rank=5, q_rank=6, head_size=3, rope_size=4, value_size=5),
  "queries not compressed": dict(
    heads=3, rank=4, head_size=2, rope_size=6, value_size=3, layout="half", theta=50.0, gate="entry"
  ),
  "without positions": dict(heads=2, rank=4, head_size=4, rope_size=3, value_size=3, position="none", gate="head"),
}
RESUMED = ("",)
REFUSED = [
  (dict(rope_size=5), "MLA: rope_size=5 is odd; position='rope' turns pairs"),
  (dict(width=0), "MLA: width=0; it must be at least 1"),
  (dict(theta=0.0), "MLA: theta=0.0; it must be above 0"),
  (dict(norm_eps=-1e-6), "MLA: norm_eps=-1e-06; it must be at least 0"),
  (dict(rank=0), "MLA: rank=0; it must be at least 1"),
  (dict(q_rank=0), "MLA: q_rank=0; it must be at least 1"),
  (dict(position="alibi"), "MLA: position='alibi'; choose from ['none', 'rope']"),
  (dict(gate="heads"), "MLA: gate='heads'; choose from"),
  (dict(layout="full"), "MLA: layout='full'; choose from"),
  (dict(cache_dtype="int4"), "MLA: cache_dtype='int4'; choose from"),
  (dict(scaling=dict(rule="yarn", factor=2.0)), "needs ['factor', 'trained']"),
  (dict(position="none", scaling=dict(rule="ntk", factor=2.0)), "position='none' has none"),
]


def count(d, heads, rank, q_rank, head_size, rope_size, value_size, gate):
  """Queries through a norm; latents and theirs; the shared key; keys, values and out; a gate a head."""
  assert gate == "head"
  queries = d * q_rank + q_rank + q_rank * heads * (head_size + rope_size)
  return (
    queries + (d + 1) * rank + d * rope_size + rank * heads * (head_size + value_size) + heads * (value_size + 1) * d
  )


X = jax.random.normal(jax.random.key(1), (2, 12, 8))
SIZES = dict(heads=2, rank=6, head_size=3, rope_size=4, value_size=5)


@functools.cache
def ready(**kwargs):
  module = MLA(width=8, **SIZES, **kwargs)
  return module, variables(module, X)


@pytest.mark.parametrize("dtype, size", [("float32", 4), ("bfloat16", 2), ("int8", 1)])
def test_the_cache_is_of_latents_and_one_key_only(dtype, size):
  """rank + rope_size numbers a token, however many heads there are; with int8 also two units."""
  module = MLA(width=2048, cache_dtype=dtype)
  state = jax.eval_shape(lambda: module.init_state(1, 1000))
  kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.kept))
  assert kept == 1000 * ((512 + 64) * size + (8 if dtype == "int8" else 0))


@pytest.mark.parametrize(
  "dtype, tolerance",
  [("float32", 1e-6), *(pytest.param(d, 0.03, marks=pytest.mark.slow) for d in ("bfloat16", "int8"))],
)
def test_attention_to_latents_is_attention_to_keys_and_values(dtype, tolerance):
  """In prefill and in steps, to the rounding of the cache."""
  module, variables = ready(q_rank=5, cache_dtype=dtype)
  run = jax.jit(module.apply, static_argnames="method")
  expanded = run(variables, X)
  absorbed, state = run(variables, X[:, :9], module.init_state(2, 12), method="prefill")
  y, _ = stepped(module, variables, X[:, 9:], state)
  error = np.abs(jnp.concatenate([absorbed, y], axis=1) - expanded).max() / np.abs(expanded).max()
  assert error <= tolerance
  assert error > 0 or dtype == "float32"


@pytest.mark.slow
def test_a_document_that_outgrew_the_cache_is_nan_until_the_next_one():
  """Though the last document of the call fits."""
  module, variables = ready()
  _, state = module.apply(variables, X[:, :6], module.init_state(2, 4), method="prefill")
  reset = jnp.zeros((2, 4), bool).at[:, 2].set(True)
  y, _ = module.apply(variables, X[:, 6:10], state, reset=reset, method="prefill")
  assert np.isnan(y[:, :2]).all()
  np.testing.assert_allclose(y[:, 2:], module.apply(variables, X[:, 8:10]), atol=1e-6)


@pytest.mark.slow
def test_without_positions_the_order_of_what_is_seen_does_not_matter():
  for position in ("none", "rope"):
    module, variables = ready(position=position)
    last = [module.apply(variables, X[:, jnp.array(order)])[:, -1] for order in ([0, 1, 2, 3], [2, 0, 1, 3])]
    assert np.allclose(*last, atol=1e-6) == (position == "none")


def test_yarn_multiplies_all_scores():
  scaling = dict(rule="yarn", factor=4.0, trained=64, mscale=0.5)
  scales = [MLA(width=8, **SIZES, scaling=given)._scale for given in (None, scaling)]
  np.testing.assert_allclose(scales[1] / scales[0], (0.05 * np.log(4) + 1) ** 2)


def test_derived_sizes_are_those_of_v2_lite():
  module = MLA(width=2048)
  params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 2, 2048)))["params"]
  shapes = {name: nn.unbox(part)["kernel"].shape for name, part in params.items() if name.endswith("proj")}
  assert shapes == {
    "q_proj": (2048, 16 * 192),
    "c_proj": (2048, 512),
    "r_proj": (2048, 64),
    "out_proj": (16 * 128, 2048),
  }
  assert MLA(width=48)._heads == 1
