"""Parameters as every module here declares them."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from layers.initializers import Initializer


def param(
  module: nn.Module, name: str, init: Initializer, shape: tuple[int, ...], axes: tuple[str | None, ...]
) -> Float[Array, "..."]:
  """A float32 parameter of `module`, each of its axes with the logical name by which a mesh shards it, or None."""
  # of NumPy where variables have just been read
  return jnp.asarray(module.param(name, nn.with_logical_partitioning(init, axes), shape, jnp.float32))


def buffer(module: nn.Module, name: str, init: Initializer, shape: tuple[int, ...]) -> Float[Array, "..."]:
  """A float32 array that is drawn as parameters are, and is none: it is kept in the collection "buffers"."""
  draw = lambda: init(module.make_rng("params"), shape, jnp.float32)
  return jnp.asarray(module.variable("buffers", name, draw).value)
