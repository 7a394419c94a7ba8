"""BigBird's initial values, what its blocks see, and its limit."""

import jax
import numpy as np
import pytest

from attention.efficient.bigbird import BigBird
from tests.attention.exact import exact
from tests.initial import initial, shaped, uniform

SMALL = {"": dict(heads=2, block=2, random=1)}
ORACLE = {
  "": dict(heads=2, block=2, random=1),
  "wide window": dict(heads=4, block=1, window=5, random=2, bias=True, max_len=20),
}
REFUSED = [
  (dict(heads=3), "heads=3 does not divide width=8"),
  (dict(block=0), "block=0; it must be at least 1"),
  (dict(window=2), "window=2; it must be odd"),
  (dict(random=-1), "random=-1; it must not be negative"),
]
INITIAL = [(dict(width=64), {"priority": shaped(8, 64, 64), "qkv/q_proj": uniform((6 / 128) ** 0.5)})]


def count(d, bias=False, **_):
  """Queries, keys, values and out."""
  return 4 * d * (d + bias)


X = jax.random.normal(jax.random.key(1), (2, 12, 8))


def ready(**kwargs):
  module = BigBird(width=8, heads=2, max_len=12, **kwargs)
  return module, jax.jit(module.init)(jax.random.key(0), X)


@pytest.mark.parametrize("kwargs", [dict(block=3, window=7), dict(block=5, window=3), dict(block=1, random=12)])
def test_what_sees_all_blocks_is_exact_attention(kwargs):
  """By its window, or by chance; the last block may be shorter."""
  module, variables = ready(**kwargs)
  got = jax.jit(module.apply)(variables, X)
  np.testing.assert_allclose(got, exact(initial(module), X, heads=2), atol=1e-5)


def test_blocks_see_their_neighbours_both_ends_and_some_others():
  """Where the Jacobian is not zero, in blocks of 2; the others differ between heads, and stay when asked again."""
  module, variables = ready(block=2, random=1)
  jacobian = jax.jit(jax.jacobian(lambda x: module.apply(variables, x[None])[0].sum(axis=-1)))(X[0])
  sees = np.abs(jacobian).max(axis=-1).reshape(6, 2, 6, 2).max(axis=(1, 3)) > 0
  near = np.abs(np.arange(6)[:, None] - np.arange(6)) <= 1
  ends = np.isin(np.arange(6), (0, 5))
  must = near | ends | ends[:, None]
  assert sees[must].all()
  extra = (sees & ~must).sum(axis=1)
  assert (extra[1:-1] >= 1).all()
  assert (extra <= 2).all()
