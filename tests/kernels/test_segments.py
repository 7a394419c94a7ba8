"""Functions of segments: each token once, no call across a boundary, by segments as by tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import segments

B, T, D, SIZE = 4, 11, 2, 4
OFFSET = np.array([0, 3, 1, 2])
LENGTHS = np.array([11, 0, 5, 2])


def piece(x, state, lengths):
  """Running sums within a segment, and the sum of the document before it."""
  count, total, part = state
  begins = (count % SIZE == 0) & (lengths > 0)
  total, part = jnp.where(begins[:, None], total + part, total), jnp.where(begins[:, None], 0, part)
  x = jnp.where((jnp.arange(x.shape[1]) < lengths[:, None])[..., None], x, 0)
  y = part[:, None] + jnp.cumsum(x, axis=1)
  return jnp.sin(y) * jnp.cos(total)[:, None], (count + lengths, total, part + x.sum(axis=1))


def worn():
  rng = np.random.default_rng(1)
  return (jnp.asarray(OFFSET, jnp.int32), *(jnp.asarray(rng.standard_normal((B, D)), jnp.float32) for _ in range(2)))


def initial():
  return jnp.zeros(B, jnp.int32), jnp.zeros((B, D)), jnp.zeros((B, D))


def loop(x, state, reset, lengths):
  """Token by token and row by row."""
  y = np.zeros_like(x)
  count, total, part = (np.array(z) for z in state)
  for row in range(B):
    for t in range(lengths[row]):
      if reset[row, t]:
        count[row], total[row], part[row] = 0, 0, 0
      if count[row] % SIZE == 0:
        total[row], part[row] = total[row] + part[row], 0
      count[row] += 1
      part[row] += x[row, t]
      y[row, t] = np.sin(part[row]) * np.cos(total[row])
  return y, (count, total, part)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_every_token_is_called_with_its_own_segment(packed, ragged):
  rng = np.random.default_rng(0)
  x = rng.standard_normal((B, T, D)).astype(np.float32)
  reset = rng.random((B, T)) < 0.3 if packed else np.zeros((B, T), bool)
  lengths = LENGTHS if ragged else np.full(B, T)
  given = dict(
    size=SIZE, offset=jnp.asarray(OFFSET), initial=initial(), lengths=jnp.asarray(lengths) if ragged else None
  )
  run = jax.jit(lambda x, state: segments.each(piece, x, state, reset=jnp.asarray(reset) if packed else None, **given))
  poisoned = np.where(np.arange(T)[:, None] < lengths[:, None, None], x, np.nan)
  y, state = run(poisoned, worn())
  want, last = loop(x, worn(), reset, lengths)
  there = np.arange(T)[:, None] < lengths[:, None, None]
  np.testing.assert_allclose(np.where(there, y, 0), want, atol=1e-5)
  for got, wanted in zip(state, last):
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_both_ways_have_the_same_gradient():
  x = jax.random.normal(jax.random.key(0), (B, T, D))

  def loss(x, floats, reset):
    state = (worn()[0], *floats)
    y, last = segments.each(piece, x, state, size=SIZE, offset=state[0], initial=initial(), reset=reset)
    return jnp.sum(jnp.cos(y)) + jnp.sum(last[2] ** 2)

  none = jnp.zeros((B, T), bool)
  by_segment, by_token = (jax.jit(jax.grad(loss, argnums=(0, 1)))(x, worn()[1:], reset) for reset in (None, none))
  for got, want in zip(jax.tree.leaves(by_segment), jax.tree.leaves(by_token)):
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_no_tokens_leave_the_state_alone():
  y, state = segments.each(
    piece, jnp.zeros((B, 0, D)), worn(), size=SIZE, offset=jnp.asarray(OFFSET), initial=initial()
  )
  assert y.shape == (B, 0, D)
  np.testing.assert_array_equal(state[1], worn()[1])
