"""Functions done for each document by itself, as if it were in a row of its own; and positions within documents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import documents, inputs
from kernels.documents import positions

B, T, H, P = 4, 9, 2, 3
X = jax.random.normal(jax.random.key(0), (B, T, H, P))
W = jax.random.normal(jax.random.key(1), (P, P))
STARTS = [(), (0,), (4,), (1, 2, 7)]
RESET = jnp.array([[t in row for t in range(T)] for row in STARTS])
ENDS = (T, 5, 0, 8)
LENGTHS = jnp.array(ENDS)


def whole(W, x, lengths):
  """Depends on how long the sequence is, on every token of it, and on where a token is."""
  n = jnp.full(x.shape[0], x.shape[1]) if lengths is None else lengths
  n = n[:, None, None, None]
  total = jnp.tanh(x @ W).sum(axis=1, keepdims=True) / jnp.maximum(n, 1)
  return (x + total**2) * (1 + jnp.arange(x.shape[1])[:, None, None] / jnp.maximum(n, 1))


def one_by_one(W, x, ends):
  rows = []
  for row in range(B):
    end = ends[row]
    starts = [t for t in range(end) if t == 0 or t in STARTS[row]]
    parts = [whole(W, x[row : row + 1, a:b], None)[0] for a, b in zip(starts, [*starts[1:], end])]
    rows.append(jnp.concatenate([*parts, jnp.zeros((T - end, H, P))]))
  return jnp.stack(rows)


@pytest.mark.parametrize("ragged", [False, True])
def test_every_document_is_alone(ragged):
  weights = jax.random.normal(jax.random.key(2), X.shape)

  def value_and_grads(fn):
    loss = lambda W, x: (jnp.sum(weights * fn(W, x)), fn(W, x))
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(W, X)

  ours = value_and_grads(lambda W, x: documents.each(whole, W, x, reset=RESET, lengths=LENGTHS if ragged else None))
  theirs = value_and_grads(lambda W, x: one_by_one(W, x, ENDS if ragged else (T,) * B))
  for got, want in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


def test_what_lies_past_the_lengths_reaches_nothing():
  past = ~inputs.valid(LENGTHS, T)[..., None, None]
  x = jnp.where(past, jnp.nan, X)
  for reset in (None, RESET):
    loss = lambda x, reset=reset: documents.each(whole, W, x, reset=reset, lengths=LENGTHS).sum()
    value, grad = jax.jit(jax.value_and_grad(loss))(x)
    assert np.isfinite(value)
    assert np.isfinite(grad).all()
    assert not np.where(past, grad, 0).any()


def test_what_documents_share_has_a_gradient_that_is_added_up_in_float32():
  """Of 600 documents of one token each, which bfloat16 stops counting at 256."""
  x, every = jnp.ones((1, 600, 1), jnp.bfloat16), jnp.ones((1, 600), bool)
  loss = lambda w: (
    documents.each(lambda w, x, lengths: w * x, w, x, reset=every, lengths=None).astype(jnp.float32).sum()
  )
  assert jax.jit(jax.grad(loss))(jnp.ones((), jnp.bfloat16)) == 600


def test_positions_count_within_the_document():
  before, lengths = jnp.array([0, 3], jnp.int32), jnp.array([5, 3])
  reset = jnp.array([[0, 0, 1, 0, 0], [0, 0, 0, 0, 1]], bool)
  position, length = positions(before, 5)
  assert position.tolist() == [[0, 1, 2, 3, 4], [3, 4, 5, 6, 7]]
  assert length.tolist() == [5, 8]
  position, length = positions(before, 5, reset=reset)
  assert position.tolist() == [[0, 1, 0, 1, 2], [3, 4, 5, 6, 0]]
  assert length.tolist() == [3, 1]
  position, length = positions(before, 5, reset=reset, lengths=lengths)
  assert position[1, :3].tolist() == [3, 4, 5]
  assert length.tolist() == [3, 6], "a reset past the length is none"


def test_lengths_are_at_most_the_tokens_there_are():
  before = jnp.array([0, 3], jnp.int32)
  assert positions(before, 5, lengths=jnp.array([0, 9]))[1].tolist() == [0, 8]


def test_no_token_leaves_the_length_as_it_is():
  position, length = positions(jnp.array([7], jnp.int32), 0, reset=jnp.zeros((1, 0), bool))
  assert position.shape == (1, 0)
  assert length.tolist() == [7]
