"""The values that modules start with, without Linen's boxes; as compiled programs, which is faster than op by op.

And checks of such values, for the tables INITIAL of tests/mixers/: each is made of what is expected and is called with
the values, after `of` where their spread is that of a function of the parameter.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def variables(module, *inputs):
  """All collections; without inputs, those of a mixer that has seen one token."""
  return nn.unbox(jax.jit(module.init)(jax.random.key(0), *(inputs or [jnp.zeros((1, 1, module.width))])))


def initial(module, *inputs):
  """The parameters."""
  return variables(module, *inputs)["params"]


def made(kind, width, **fields):
  """A mixer of a class, and its variables."""
  module = kind(width=width, **fields)
  return module, variables(module)


def uniform(bound, rtol=0.02):
  """Draws between -bound and bound: their ends, and their deviation."""

  def check(value):
    np.testing.assert_allclose([value.min(), value.max()], [-bound, bound], rtol=rtol)
    np.testing.assert_allclose(np.std(value), bound / 3**0.5, rtol=max(rtol, 2 / value.size**0.5))

  return check


def normal(std, rtol=0.05):
  """Draws with this deviation, and a mean of 0 to four deviations of a mean of so many."""

  def check(value):
    np.testing.assert_allclose(np.std(value), std, rtol=rtol)
    np.testing.assert_allclose(np.mean(value), 0, atol=4 * std / value.size**0.5)

  return check


def spread(low, middle, high, atol, of=np.exp):
  """The least value, their mean and the largest."""

  def check(value):
    value = np.asarray(of(value))
    np.testing.assert_allclose([value.min(), value.mean(), value.max()], [low, middle, high], atol=atol)

  return check


def time_steps(low=1e-3, high=1e-1, atol=0.15, of=jax.nn.softplus):
  """Log-uniform steps, by the decimal logarithms of the least, the median and the largest."""
  ends = np.log10([low, high])

  def check(value):
    value = np.log10(of(value))
    np.testing.assert_allclose([value.min(), np.median(value), value.max()], [ends[0], ends.mean(), ends[1]], atol=atol)

  return check


def close(expected, rtol=1e-6, atol=0.0, of=lambda value: value):
  return lambda value: np.testing.assert_allclose(of(value), expected, rtol=rtol, atol=atol)


def orthogonal(gain=1.0):
  return lambda value: np.testing.assert_allclose(value @ value.T, gain**2 * np.eye(len(value)), atol=1e-5)


def shaped(*shape):
  def check(value):
    assert value.shape == shape

  return check
