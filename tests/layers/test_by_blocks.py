"""What works slice by slice: block-diagonal maps and norms within heads."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from layers import BlockDense, HeadNorm, LayerNorm
from layers.sizes import largest_divisor
from tests.initial import variables

X = jax.random.normal(jax.random.key(1), (3, 12))


def initial(module):
  v = variables(module, X)
  return jax.tree.map(lambda leaf: leaf + jax.random.normal(jax.random.key(2), leaf.shape), v)


def test_block_dense_is_a_block_diagonal_matrix():
  v = initial(module := BlockDense(3, use_bias=True))
  p = v["params"]
  W = jax.scipy.linalg.block_diag(*p["kernel"])
  np.testing.assert_allclose(jax.jit(module.apply)(v, X), X @ W + p["bias"], atol=1e-5)


def test_block_dense_starts_with_the_fan_in_of_a_block():
  p = jax.jit(BlockDense(4).init)(jax.random.key(0), jnp.zeros((1, 400)))
  np.testing.assert_allclose(np.mean(np.square(nn.unbox(p)["params"]["kernel"])), 1 / 100, rtol=0.05)


def test_head_norm_is_layer_norm_within_each_head():
  v = initial(module := HeadNorm(3))
  unit = {"params": {"scale": jnp.ones(4), "bias": jnp.zeros(4)}}
  parts = [LayerNorm().apply(unit, part) for part in jnp.split(X, 3, axis=-1)]
  expected = jnp.concatenate(parts, axis=-1) * v["params"]["scale"]
  np.testing.assert_allclose(jax.jit(module.apply)(v, X), expected, atol=1e-5)


@pytest.mark.parametrize("module", [BlockDense(3), HeadNorm(3)])
def test_they_keep_the_dtype_of_their_input_and_take_no_tokens_too(module):
  assert jax.eval_shape(module.apply, initial(module), X.astype(jnp.bfloat16)).dtype == jnp.bfloat16
  assert module.apply(initial(module), X[:0]).shape == (0, 12)


@pytest.mark.parametrize("width, published, blocks", [(48, 10, 8), (2560, 10, 10), (8, 4, 4), (7, 4, 1), (1, 4, 1)])
def test_blocks_not_given_divide_the_width(width, published, blocks):
  assert largest_divisor(width, published) == blocks
