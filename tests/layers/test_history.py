"""The resumable long convolution: documents within its buffer, and what does not fit there."""

import jax.numpy as jnp
import numpy as np
import pytest

from layers import history

S, E = 6, 2
rng = np.random.default_rng(0)


def draw(*shape):
  return rng.standard_normal(shape).astype(np.float32)


K = draw(E, S)


def resume(u, k, past, **masks):
  return history.resume(*map(jnp.asarray, (u, k)), past, **{name: jnp.asarray(value) for name, value in masks.items()})


def convolved(u, k=None):
  k = K if k is None else k
  return np.stack([np.convolve(u[:, e], k[e])[: len(u)] for e in range(E)], axis=1)


def test_a_token_without_room_is_nan_and_the_next_document_has_room_again():
  u = draw(1, 12, E)
  reset = np.isin(np.arange(12), [1, 9])[None]
  y, past = resume(u, K, history.empty(1, S, E), reset=reset)
  np.testing.assert_allclose(y[0, :1], convolved(u[0, :1]), rtol=1e-5)
  np.testing.assert_allclose(y[0, 1:7], convolved(u[0, 1:7]), rtol=1e-4, atol=1e-5)
  assert np.isnan(y[0, 7:9]).all()
  np.testing.assert_allclose(y[0, 9:], convolved(u[0, 9:]), rtol=1e-4, atol=1e-5)
  assert past.length == 3
  np.testing.assert_array_equal(past.u[0], np.concatenate([np.zeros((3, E)), u[0, 9:]]))


def test_each_row_goes_on_from_its_own_end():
  u, more = draw(2, 3, 4, E)
  lengths = np.array([0, 1, 4])
  _, past = resume(u, K, history.empty(3, S, E), lengths=lengths)
  np.testing.assert_array_equal(past.length, lengths)
  y, past = resume(more[:, :1], K, past)
  for row, n in enumerate(lengths):
    np.testing.assert_allclose(
      y[row, 0], convolved(np.append(u[row, :n], more[row, :1], axis=0))[-1], rtol=1e-4, atol=1e-5
    )


def test_fewer_taps_than_room_are_followed_by_zeros():
  u = draw(1, S, E)
  few = K[:, :2]
  y, past = resume(u[:, :-1], few, history.empty(1, S, E))
  last, _ = resume(u[:, -1:], few, past)
  np.testing.assert_allclose(np.append(y[0], last[0], axis=0), convolved(u[0], few), rtol=1e-4, atol=1e-5)


def test_more_than_the_filters_reach_is_refused():
  history.require("Hyena", 8, 8)
  with pytest.raises(ValueError, match="Hyena: 9 tokens, but it was built for max_len=8"):
    history.require("Hyena", 9, 8)
