"""Nystromformer's initial values, its inverse, its segments and its limit."""

import jax
import jax.numpy as jnp
import numpy as np

from attention.efficient.nystromformer import Nystromformer, pseudo_inverse, segment_means
from tests.attention.exact import exact
from tests.initial import initial, shaped, uniform

SMALL = {"": dict(heads=2, landmarks=3, taps=3)}
ORACLE = {
  "": dict(heads=2, landmarks=3, taps=5),
  "no convolution": dict(heads=4, landmarks=4, taps=0, iterations=2, bias=True),
}
REFUSED = [
  (dict(heads=3), "heads=3 does not divide width=8"),
  (dict(landmarks=0), "landmarks=0; it must be at least 1"),
  (dict(iterations=0), "iterations=0; it must be at least 1"),
  (dict(taps=4), "taps=4; an odd number"),
  (dict(taps=-1), "taps=-1; an odd number"),
]
INITIAL = [
  (
    dict(width=64, heads=64),
    {"kernel": shaped(35, 64), "kernel ": uniform(35**-0.5), "qkv/q_proj": uniform((6 / 128) ** 0.5)},
  )
]


def count(d, heads, taps, **_):
  """Queries, keys, values and out; the convolution."""
  return 4 * d * d + taps * heads


X = jax.random.normal(jax.random.key(1), (2, 12, 8))


def test_the_iterations_tend_to_the_pseudo_inverse():
  """Of a matrix whose last rows and columns are those of landmarks that are not there."""
  A = np.zeros((5, 5))
  A[:3, :3] = jax.nn.softmax(2 * np.eye(3) + np.random.default_rng(0).standard_normal((3, 3)), axis=1)
  errors = [np.abs(pseudo_inverse(jnp.asarray(A), i) - np.linalg.pinv(A)).max() for i in (2, 10)]
  assert errors[1] < 1e-4
  assert errors[1] < errors[0]


def test_the_iterations_are_in_full_precision_on_every_device():
  """What accelerators round the factors of a product to by themselves would grow from round to round."""
  products = [
    line
    for line in str(jax.make_jaxpr(lambda A: pseudo_inverse(A, 2))(jnp.eye(3))).splitlines()
    if "precision=" in line
  ]
  assert len(products) == 8
  assert all("HIGHEST" in line for line in products)


def test_a_landmark_at_every_token_is_exact_attention():
  """As the inverse converges; documents that are shorter than their number have one at every token."""
  params = initial(Nystromformer(width=8, heads=2, landmarks=12, taps=0))
  want = exact(params, X, heads=2)
  for landmarks, iterations, tolerance in ((12, 30, 2e-3), (100, 30, 2e-3), (12, 6, 0.1)):
    module = Nystromformer(width=8, heads=2, landmarks=landmarks, taps=0, iterations=iterations)
    error = np.abs(jax.jit(module.apply)({"params": params}, X) - want).max() / np.abs(want).max()
    assert error < tolerance, (landmarks, iterations)


def test_segments_share_out_every_document():
  """Of tokens 0, 1, 2, ... the means tell the segments: of 4, of 3 and 4, of one token each, and none at all."""
  tokens = jnp.broadcast_to(jnp.arange(12.0)[:, None, None], (4, 12, 1, 1))
  means, live = segment_means(3, jnp.array([12, 10, 2, 0]), tokens)
  np.testing.assert_allclose(means[..., 0, 0], [[1.5, 5.5, 9.5], [1.5, 5, 8], [0, 1, 0], [0, 0, 0]], atol=1e-6)
  np.testing.assert_array_equal(live, np.arange(3) < np.array([3, 3, 2, 0])[:, None])
