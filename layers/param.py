"""Parameters as every module here declares them."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from layers.initializers import Initializer


def param(
  module: nn.Module, name: str, init: Initializer, shape: tuple[int, ...], axes: tuple[str | None, ...]
) -> Float[Array, "..."]:
  """A float32 parameter of `module`, each of its axes with the logical name by which a mesh shards it, or None."""
  # what reads a checkpoint may give NumPy's arrays, which some operations of JAX refuse
  return jnp.asarray(module.param(name, nn.with_logical_partitioning(init, axes), shape, jnp.float32))


def buffer(
  module: nn.Module, name: str, init: Initializer, shape: tuple[int, ...], axes: tuple[str | None, ...]
) -> Float[Array, "..."]:
  """A float32 array made as parameters are, and none of them: it is kept in the collection "buffers"."""
  boxed = nn.with_logical_partitioning(init, axes)
  draw = lambda: boxed(module.make_rng("params"), shape, jnp.float32)
  return jnp.asarray(module.variable("buffers", name, draw).value)
