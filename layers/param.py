"""Parameters as every module here declares them, each with the facts that sharding and the optimizer want to know."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from layers.initializers import Initializer


class Parameter(nn.LogicallyPartitioned):
  """The box in which Linen's `init` returns a parameter.

  Attributes:
    slow: it wants the optimizer's `slow_lr` and no weight decay, as a state space's spectrum and time step do.
    decay: False: no weight decay, for biases, scales and mixtures that are stored together as a matrix. Vectors and
      slow parameters have none anyway.
    used: the share of it that one token passes, below 1 where experts take turns.
  """

  slow: bool = struct.field(default=False, pytree_node=False)
  decay: bool = struct.field(default=True, pytree_node=False)
  used: float = struct.field(default=1.0, pytree_node=False)

  # the __eq__ of a dataclass would compare arrays, which have no single truth value
  __eq__ = nn.LogicallyPartitioned.__eq__
  __hash__ = None  # type: ignore[assignment]


class Adapted(NamedTuple):
  """A matrix W + A B, in the place of a parameter, whose change of low rank need not be multiplied out."""

  W: Float[Array, "d e"]
  A: Float[Array, "d r"]
  B: Float[Array, "r e"]


def param(
  module: nn.Module,
  name: str,
  init: Initializer,
  shape: tuple[int, ...],
  axes: tuple[str | None, ...],
  *,
  slow: bool = False,
  decay: bool = True,
  used: float = 1.0,
) -> Float[Array, "..."]:
  """Declares a float32 parameter of `module`; one that is adapted comes multiplied out.

  Args:
    axes: for each axis the logical name by which a mesh shards it, or None.
    slow, decay, used: see `Parameter`.
  """
  value = matrix(module, name, init, shape, axes, slow=slow, decay=decay, used=used)
  return value.W + value.A @ value.B if isinstance(value, Adapted) else value


def matrix(
  module: nn.Module,
  name: str,
  init: Initializer,
  shape: tuple[int, ...],
  axes: tuple[str | None, ...],
  **facts: bool | float,
) -> Float[Array, "..."] | Adapted:
  """Declares a parameter as `param` does, and returns it as it is."""
  named = [axis for axis in axes if axis is not None]
  assert len(named) == len(set(named)), f"{name}: on a mesh no two axes may have one name: {axes}"

  def boxed(key, shape, dtype):
    return Parameter(init(key, shape, dtype), names=axes, **facts)

  # what reads a checkpoint may give NumPy's arrays, which some operations of JAX refuse
  return jax.tree.map(jnp.asarray, module.param(name, boxed, shape, jnp.float32))


def buffer(
  module: nn.Module,
  name: str,
  init: Initializer,
  shape: tuple[int, ...],
  axes: tuple[str | None, ...],
  *,
  collection: str = "buffers",
) -> Float[Array, "..."]:
  """Returns a float32 array made as parameters are, and none of them: it is kept in another collection."""
  boxed = nn.with_logical_partitioning(init, axes)
  draw = lambda: boxed(module.make_rng("params"), shape, jnp.float32)
  return jnp.asarray(module.variable(collection, name, draw).value)
