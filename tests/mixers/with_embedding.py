"""WithEmbedding: small sizes, parameter count; it reads the embedding beside each token."""

import jax
import jax.numpy as jnp
import numpy as np

from hybrids.channel.mlp import MLP
from hybrids.wrap.with_embedding import WithEmbedding
from tests import mixers
from tests.contract.case import D
from tests.hybrids.filled import filled

SMALL = {"": dict(mixer=dict(name="mlp", expand=1)), "embedding": dict(mixer=dict(name="min_gru"))}
SIDE = {"embedding": {"embedding": lambda b, t: np.random.default_rng(0).standard_normal((b, t, D))}}
ORACLE = {}
REFUSED = [
  (dict(mixer=dict(name="mpl")), "no mixer is called 'mpl' (did you mean 'mlp'"),
  (dict(mixer=dict(name="rwkv7")), "mixer 'rwkv7' offers arrays to later layers"),
]


def count(d, mixer):
  """The mixer of twice the width, and the map back."""
  return mixers.count(width=2 * d, **mixer) + 2 * d * d


def test_it_reads_token_and_embedding_side_by_side():
  x, e = jax.random.normal(jax.random.key(0), (2, 2, 5, 8))
  module = WithEmbedding(width=8, mixer=dict(name="mlp", expand=1))
  params = filled(module, x)["params"]
  inner = MLP(width=16, expand=1).apply({"params": params["inner"]}, jnp.concatenate([x, e], axis=-1))
  y = module.apply({"params": params}, x, side={"embedding": e})
  np.testing.assert_allclose(y, inner @ params["out_proj"]["kernel"], rtol=1e-5, atol=1e-5)
