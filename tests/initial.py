"""The values that modules start with, without Linen's boxes; as compiled programs, which is faster than op by op."""

import flax.linen as nn
import jax
import jax.numpy as jnp


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
