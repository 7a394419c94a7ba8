"""Operations are counted where the compiler's estimate fails: inside loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.attention import attention
from kernels.experts import experts
from kernels.lstm import lstm
from kernels.ssd import ssd
from tests.training import toy
from training import flops

A, B = jax.ShapeDtypeStruct((4, 3), "float32"), jax.ShapeDtypeStruct((3, 5), "float32")


def test_a_matrix_product_counts_two_for_each_triple():
  assert flops.count(lambda a, b: a @ b, A, B) == 2 * 4 * 3 * 5
  assert flops.count(lambda a, b: (a + 1j) @ b, A, B) > 4 * 2 * 4 * 3 * 5


def test_experts_count_the_rows_that_they_are_chosen_for():
  """Two of five experts for each of six tokens, whatever form runs here; the backward pass is twice as much."""

  def function(x, W_in, W_out):
    return experts(x, chosen, jnp.ones((2, 3, 2)), W_in, W_out, activation=lambda z: z).sum()

  chosen = jnp.arange(12).reshape(2, 3, 2) % 5
  shapes = [jax.ShapeDtypeStruct(shape, "float32") for shape in ((2, 3, 8), (5, 8, 16), (5, 16, 8))]
  products = 2 * 6 * 2 * (2 * 8 * 16)
  assert products < flops.count(function, *shapes) < 1.2 * products
  assert 3 * products < flops.count(jax.grad(function, argnums=(0, 1, 2)), *shapes) < 3.5 * products


def test_kernels_that_hide_their_operations_are_not_counted_in_their_place():
  """Attention, matrix states and the LSTM have such kernels on CPUs."""
  b, t, d, heads = 1, 64, 8, 2
  z = lambda *shape: jax.ShapeDtypeStruct(shape, "float32")
  heads_of = lambda size: z(b, t, heads, size)
  assert flops.count(attention, *[heads_of(d)] * 3) > 4 * t * t * heads * d
  assert flops.count(ssd, *[heads_of(d)] * 3, z(b, t, heads), z(b, heads, d, d)) > 4 * t * heads * d * d
  assert flops.count(lstm, z(b, t, 4 * d), z(d, 4 * d), z(b, d), z(b, d)) > 8 * t * d * d


def test_a_loop_counts_its_body_for_each_turn():
  def function(a, b):
    return jax.lax.scan(lambda c, _: (jnp.tanh(c @ b @ b.T), None), a, None, length=7)[0]

  assert flops.count(function, A, B) == pytest.approx(7 * (2 * 2 * 4 * 3 * 5 + 12), rel=0.1)


def test_elementwise_reductions_and_transforms():
  x = jax.ShapeDtypeStruct((2, 8), "float32")
  assert flops.count(lambda x: jnp.exp(x) * x, x) == 32
  assert flops.count(lambda x: x.sum(), x) == 16
  assert flops.count(lambda x: x.T.reshape(-1)[::2], x) == 0
  assert flops.count(jnp.fft.fft, jax.ShapeDtypeStruct((2, 8), "complex64")) == 2 * 5 * 8 * 3
  assert flops.count(jnp.fft.rfft, x) == 5 * 8 * 3


def test_functions_with_their_own_derivatives_count_once():
  @jax.custom_vjp
  def double(x):
    return x * 2.0

  double.defvjp(lambda x: (double(x), None), lambda _, g: (g * 2.0,))
  x = jax.ShapeDtypeStruct((8,), "float32")
  assert flops.count(double, x) == 8
  assert flops.count(jax.checkpoint(lambda x: jnp.sin(x) + 1), x) == 16


def test_per_token_of_a_model_is_about_two_for_each_weight_it_multiplies():
  model, task = toy.Model(width=32, inner=32), toy.Task()
  variables = jax.eval_shape(model.init, jax.random.PRNGKey(0), np.zeros((1, 1), np.int32))
  found = flops.per_token(model, variables, jax.ShapeDtypeStruct((4, task.length), "int32"))
  weights = 32 * 32 + 32 * 8
  assert 2 * weights < found < 2.5 * weights
