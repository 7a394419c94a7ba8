"""Initial values of a mixer, unboxed, and a step of it."""

import flax.linen as nn
import jax
import jax.numpy as jnp


def initial(module):
  return nn.unbox(jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 1, module.width))))["params"]
