"""What holds for every op over time."""

import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import long_conv, max_scan
from tests.kernels.compare import assert_close, values_and_gradients
from tests.kernels.ops import OPS

LOOPS = {"scan", "while", "fft", "cumsum", "cummax", "triangular_solve", "pad"}


def primitives(jaxpr):
  """Names of all operations in a program, inner ones included."""
  core = jax.extend.core
  for equation in jaxpr.eqns:
    yield equation.primitive.name
    inner = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda z: isinstance(z, core.ClosedJaxpr))
    for program in inner:
      if isinstance(program, (core.Jaxpr, core.ClosedJaxpr)):
        yield from primitives(getattr(program, "jaxpr", program))


@pytest.mark.parametrize("name", OPS)
def test_one_token_equals_the_first_of_two_whose_second_is_padding(name):
  """The other way through the definition: a loop, and a state that stands still."""
  op = OPS[name]
  arrays = op.draw(2)
  one = {key: z[:, :1] if key in op.tokens() else z for key, z in arrays.items()}
  got, pulled = values_and_gradients(op.run, tuple(one.values()))
  reference = functools.partial(op.run, impl="reference")

  def padded(*z):
    y, last = reference(*z, lengths=jnp.array([1, 1]))
    return y[:, :1], last

  want, want_pulled = values_and_gradients(padded, tuple(arrays.values()))
  assert_close(got, want, 1e-5)
  first = {key: z[:, :1] if key in op.tokens() else z for key, z in zip(arrays, want_pulled)}
  assert_close(pulled, tuple(first.values()), 1e-5)


@pytest.mark.parametrize("name", OPS)
def test_one_token_needs_no_loop(name):
  op = OPS[name]

  def loops(t, impl):
    arrays = map(jnp.asarray, op.draw(t).values())
    return LOOPS & set(primitives(jax.make_jaxpr(functools.partial(op.run, impl=impl))(*arrays).jaxpr))

  assert not loops(1, "auto")
  assert loops(2, "reference"), "the test sees no loop where there is one"


def test_one_token_of_ops_without_a_state_needs_no_loop():
  u, k = jnp.ones((2, 1, 3)), jnp.ones((3, 4))
  for run, arrays in ((long_conv.long_conv, (u, k)), (max_scan.max_scan, (u, u, u[:, 0]))):
    assert not LOOPS & set(primitives(jax.make_jaxpr(run)(*arrays).jaxpr))
  np.testing.assert_array_equal(long_conv.long_conv(2 * u, k, k_back=2 * k), np.full((2, 1, 3), 6))
