"""SSM2D: directions, its initial values, and its names and sizes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssm.lti.ssm2d import SSM2D


def initial(module, t=12):
  return nn.unbox(jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, t, module.width))))


@pytest.mark.parametrize("directions", [1, 2, 4])
def test_what_each_number_of_directions_sees(directions):
  module = SSM2D(width=1, state=2, directions=directions, columns=3)
  variables = initial(module)
  jacobian = jax.jit(jax.jacobian(lambda x: module.apply(variables, x)[0, :, 0]))(jnp.ones((1, 12, 1)))
  jacobian = np.abs(jacobian[:, 0, :, 0])
  row, column = np.divmod(np.arange(12), 3)
  before = (row[:, None] >= row) & (column[:, None] >= column)
  sees = {1: before, 2: before | before.T, 4: np.ones((12, 12), bool)}[directions]
  assert np.where(sees, 0, jacobian).max() < 1e-6 * jacobian.max()
  assert np.where(sees, jacobian, jacobian.max()).min() > 1e-6 * jacobian.max()


@pytest.mark.slow
def test_equal_directions_turn_with_the_image():
  module = SSM2D(width=2, state=2, rows=3, columns=4)
  p = initial(module)["params"]
  same = {name: jnp.broadcast_to(value[:, :1], value.shape) if value.ndim > 1 else value for name, value in p.items()}
  x = jax.random.normal(jax.random.key(1), (1, 12, 2))
  turn = lambda z: jnp.flip(z.reshape(1, 3, 4, 2), axis=2).reshape(1, 12, 2)
  y, turned = (module.apply({"params": same}, z) for z in (x, turn(x)))
  np.testing.assert_allclose(turned, turn(y), rtol=1e-4, atol=1e-5)


def test_initial_values():
  p = initial(SSM2D(width=64, state=16))["params"]
  assert {name: value.shape[0] for name, value in p.items()} == {"A_size": 4, "B": 2, "C": 2, "D": 64}
  np.testing.assert_allclose([np.std(p[name]) for name in ("A_size", "B", "C", "D")], [0.2, 0.2, 1, 1], rtol=0.2)
  p = initial(SSM2D(width=64, state=16, numbers="complex"))["params"]
  for name in ("A_size", "A_angle"):
    np.testing.assert_allclose(np.quantile(p[name], [0, 0.5, 1]), [0.5, 1.75, 3], atol=0.05)


@pytest.mark.parametrize(
  "kwargs, reason",
  [
    (dict(state=0), "state=0; it must be at least 1"),
    (dict(copies=3), "copies=3 does not divide width=8"),
    (dict(directions=3), r"directions=3; choose from \[1, 2, 4\]"),
    (dict(numbers="imaginary"), "numbers='imaginary'; choose from"),
  ],
)
def test_what_does_not_fit_is_named_when_the_model_is_built(kwargs, reason):
  with pytest.raises(ValueError, match=reason):
    SSM2D(width=8, **kwargs)


def test_sides_that_do_not_match_the_sequence_are_refused():
  module = SSM2D(width=2, state=2, rows=2, columns=3)
  with pytest.raises(ValueError, match="SSM2D: rows=2 times columns=3 is not 12"):
    jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 12, 2)))
