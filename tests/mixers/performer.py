"""Performer's random features: how they are drawn, and that many of them are softmax attention."""

import jax
import numpy as np
import pytest

from attention.efficient.performer import Performer, orthogonal
from attention.softmax import Attention
from tests.initial import initial, shaped, uniform

SMALL = {
  "": dict(heads=2, features=5),
  "full": dict(heads=2, features=5, mask="full"),
  "relu": dict(heads=1, features=9, kernel="relu", bias=True),
}
ORACLE = {
  "": dict(heads=2, features=5),
  "full": dict(heads=4, features=3, mask="full", eps=0.1),
  "large eps": dict(heads=2, features=3, eps=0.1, bias=True),
  "relu": dict(heads=2, features=9, kernel="relu"),
}
SLOW = ("large eps",)
REFUSED = [
  (dict(heads=3), "heads=3 does not divide width=8"),
  (dict(features=0), "features=0; it must be at least 1"),
  (dict(kernel="cosine"), "kernel='cosine'; choose from"),
  (dict(mask="both"), "mask='both'; choose from"),
  (dict(eps=-1.0), "eps=-1.0; it must not be negative"),
]
INITIAL = [(dict(width=64, features=10), {"W": shaped(10, 8), "qkv/q_proj": uniform((6 / 128) ** 0.5)})]


def count(d, bias=False, **_):
  """Queries, keys, values and out."""
  return 4 * d * (d + bias)


X = jax.random.normal(jax.random.key(1), (2, 12, 8))


def run(module, params, W, x=X):
  return np.asarray(jax.jit(module.apply)({"params": params, "buffers": {"W": W}}, x))


def test_features_are_orthogonal_in_blocks_and_as_long_as_gaussian_vectors():
  W = np.asarray(orthogonal(jax.random.key(0), (4000, 4)))
  products = W.reshape(-1, 4, 4) @ W.reshape(-1, 4, 4).transpose(0, 2, 1)
  np.testing.assert_allclose(products * (1 - np.eye(4)), 0, atol=1e-5)
  squares = np.square(W).sum(axis=1)
  # of a chi-squared variable: the mean is k and the variance 2k
  np.testing.assert_allclose([squares.mean(), squares.var()], [4, 8], rtol=0.1)
  np.testing.assert_allclose(np.cov(W.T), np.eye(4), atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("mask", ["causal", "full"])
def test_many_features_are_softmax_attention(mask):
  """And the error falls as one over the root of their number. Short tokens: the variance grows as e^|q' + k'|^2."""
  params, x = initial(Performer(width=8, heads=2)), X / 2
  exact = jax.jit(Attention(width=8, heads=2, mask=mask).apply)({"params": params["qkv"]}, x)
  errors = []
  for m in (16, 2**17):
    W = orthogonal(jax.random.key(2), (m, 4))
    y = run(Performer(width=8, heads=2, mask=mask, features=m), params, W, x)
    errors.append(np.sqrt(np.mean((y - exact) ** 2) / np.mean(exact**2)))
  assert errors[1] < 0.02
  assert errors[1] < errors[0] / 8


def test_long_keys_and_queries_do_not_overflow():
  """e^(|k|^2) would: the largest exponent so far is taken off, and a later one takes nothing from earlier tokens."""
  module = Performer(width=8, heads=1, features=16)
  params, W = initial(module), orthogonal(jax.random.key(2), (16, 8))
  x = X.at[:, 5].mul(100)
  y = run(module, params, W, x)
  assert np.isfinite(y).all()
  np.testing.assert_allclose(y[:, :5], run(module, params, W)[:, :5], atol=1e-6)
