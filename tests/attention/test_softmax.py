"""Softmax attention: its cache, its window, its derived sizes."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention.softmax import Attention

X = jax.random.normal(jax.random.key(1), (2, 12, 8))


def ready(**kwargs):
  module = Attention(width=8, **kwargs)
  return module, nn.unbox(jax.jit(module.init)(jax.random.key(0), X))


def run(module, variables, x, *state, method=None, **kwargs):
  method = method or ("prefill" if state else "__call__")
  return jax.jit(functools.partial(module.apply, method=method))(variables, x, *state, **kwargs)


def test_a_document_beyond_the_cache_turns_its_row_to_nan():
  """Its row alone, for good, and in prefill as in steps; a document that fits is welcome in the same slots."""
  module, variables = ready(heads=2)
  y, state = run(module, variables, X, module.init_state(2, 8), lengths=jnp.array([9, 8]))
  assert np.isnan(y[0, :9]).all()
  assert np.isfinite(y[1]).all()
  y, state = run(module, variables, X[:, 0], state, method="step")
  assert np.isnan(y).all()
  y, _ = run(module, variables, X[:, :4], state, reset=jnp.zeros((2, 4), bool).at[1, 0].set(True))
  assert np.isnan(y[0]).all()
  np.testing.assert_allclose(y[1], run(module, variables, X[:, :4])[1], atol=1e-6)


def test_a_window_outlives_any_cache():
  module, variables = ready(heads=2, window=3, position="rope")
  full = run(module, variables, X)
  state = module.init_state(2, 4)
  assert state.k.shape[1] == 3
  pieces = []
  for piece in (X[:, :5], X[:, 5:6], X[:, 6:]):
    y, state = run(module, variables, piece, state)
    pieces.append(y)
  np.testing.assert_allclose(jnp.concatenate(pieces, axis=1), full, atol=1e-6)


def test_a_window_sees_so_many_tokens():
  module, variables = ready(heads=1, window=3)
  seen = jax.jacobian(lambda x: module.apply(variables, x[None])[0, 9].sum())(X[0])
  assert np.flatnonzero(np.abs(seen).max(axis=1)).tolist() == [7, 8, 9]


def test_rotary_positions_count_from_the_start_of_the_document():
  module, variables = ready(heads=2, position="rope")
  reset = jnp.zeros((2, 12), bool).at[:, 7].set(True)
  y = run(module, variables, X, reset=reset)
  np.testing.assert_allclose(y[:, 7:], run(module, variables, X[:, 7:]), atol=1e-6)


def test_state_by_mask_and_window():
  assert [Attention(width=8, **kwargs).STATE for kwargs in ({}, dict(window=2), dict(mask="full"))] == [
    "grows",
    "window",
    "none",
  ]
  with pytest.raises(ValueError, match="mask='full' sees later tokens, so it has no state"):
    Attention(width=8, mask="full").init_state(1, 4)


def test_shared_keys_make_a_smaller_cache():
  state = jax.eval_shape(lambda: Attention(width=64, heads=8, kv_heads=2).init_state(3, 10))
  assert state.k.shape == (3, 10, 2, 8)


@pytest.mark.parametrize("width, heads", [(512, 8), (768, 8), (48, 8), (8, 4), (6, 3), (50, 5), (2, 1), (7, 7), (1, 1)])
def test_derived_heads_divide_the_width_and_leave_pairs(width, heads):
  assert Attention(width=width)._sizes == (heads, heads, width // heads)


@pytest.mark.parametrize(
  "kwargs, reason",
  [
    (dict(heads=3), "heads=3 does not divide width=8"),
    (dict(heads=4, kv_heads=3), "kv_heads=3 does not divide heads=4"),
    (dict(kv_heads=3), "no number of heads up to 8 divides width=8 and is a multiple of 3"),
    (dict(heads=8, position="rope"), "heads=8 of width=8 have size 1; position='rope' turns pairs"),
    (dict(heads=0), "heads=0; it must be at least 1"),
    (dict(window=0), "window=0; it must be at least 1"),
    (dict(window=3, mask="full"), "window=3 looks back only"),
    (dict(mask="causual"), r"mask='causual'; choose from \['causal', 'full'\]"),
    (dict(position="learned"), r"position='learned'; choose from \['none', 'rope'\]"),
  ],
)
def test_what_does_not_fit_is_named_when_the_model_is_built(kwargs, reason):
  with pytest.raises(ValueError, match=reason):
    Attention(width=8, **kwargs)
