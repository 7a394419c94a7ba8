"""Rotary and sinusoidal positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from layers.positions import LAYOUTS, rope, sinusoidal

Q, K = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))


def score(q_position, k_position, layout):
  turn = lambda x, position: rope(x, jnp.array([[position]]), layout=layout, theta=100.0)
  return float(jnp.sum(turn(Q, q_position) * turn(K, k_position)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_depend_on_the_difference_of_positions(layout):
  np.testing.assert_allclose(score(1007, 1002, layout), score(5, 0, layout), rtol=1e-4)
  np.testing.assert_allclose(score(5, 5, layout), float(jnp.sum(Q * K)), rtol=1e-5)
  assert abs(score(5, 0, layout) - score(6, 0, layout)) > 1e-3
  assert abs(score(5, 0, layout) - score(0, 5, layout)) > 1e-3


def test_layouts_differ_by_a_permutation():
  interleaved = [0, 4, 1, 5, 2, 6, 3, 7]
  positions = jnp.array([[3]])
  half = rope(Q, positions, layout="half")[..., interleaved]
  np.testing.assert_allclose(rope(Q[..., interleaved], positions, layout="interleaved"), half, rtol=1e-6)


def test_first_pair_turns_by_the_position_itself():
  turned = rope(jnp.eye(4)[:1].reshape(1, 1, 1, 4), jnp.array([[2]]), layout="interleaved")
  np.testing.assert_allclose(turned[0, 0, 0], [np.cos(2), np.sin(2), 0, 0], atol=1e-6)


def test_rope_keeps_the_dtype():
  assert rope(Q.astype(jnp.bfloat16), jnp.array([[3]])).dtype == jnp.bfloat16


def test_sinusoidal_pairs():
  vectors = sinusoidal(jnp.array([[0, 1, 7]]), 6)
  assert vectors.shape == (1, 3, 6)
  np.testing.assert_allclose(vectors[0, 0], [0, 1, 0, 1, 0, 1])
  slow = 7 * 1e4 ** (-2 / 6)
  np.testing.assert_allclose(vectors[0, 2, :4], [np.sin(7), np.cos(7), np.sin(slow), np.cos(slow)], rtol=1e-5)


def test_bad_sizes_and_layouts_are_named():
  with pytest.raises(ValueError, match="head size 3 is odd"):
    rope(jnp.zeros((1, 1, 1, 3)), jnp.zeros((1, 1), int))
  with pytest.raises(ValueError, match=r"no layout 'full'; choose from \['half', 'interleaved'\]"):
    rope(Q, jnp.zeros((1, 1), int), layout="full")
  with pytest.raises(ValueError, match="width=5 is odd"):
    sinusoidal(jnp.zeros((2,), int), 5)
