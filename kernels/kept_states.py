"""What the forward pass of an op that goes along time keeps for its gradient, and the gradient of kernels from that."""

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

# by which a policy of rematerialisation knows outputs and kept states of scans and of attention
NAME = "scans"


def named(tree: Any) -> Any:
  """Returns the arrays, by whose name `jax.checkpoint` may keep them where it recomputes all else."""

  def one(z: jax.Array) -> jax.Array:
    if jax.numpy.iscomplexobj(z):
      # what JAX keeps goes through an operation that takes no complex numbers
      return jax.lax.complex(checkpoint_name(z.real, NAME), checkpoint_name(z.imag, NAME))
    return checkpoint_name(z, NAME)

  return jax.tree.map(one, tree)


def differentiable(run: Callable, backward: Callable, *, state: int) -> Callable:
  """Returns the differentiable `scan(*args) -> (y, last state)`.

  Args:
    run: `run(*args, save=)` returns all y and the last state, and if `save` also what the gradient keeps.
    backward: gets the arguments but for the state, what is kept, and the cotangents of y and of the last state; it
      returns those of all arguments.
    state: the number of the argument that is the state before the first token, of which the gradient knows nothing.
  """

  @jax.custom_vjp
  def scan(*args):
    return run(*args, save=False)[:2]

  def save(*args):
    y, last, *saved = named(run(*args, save=True))
    return (y, last), (*args[:state], *args[state + 1 :], *saved)

  scan.defvjp(save, lambda saved, cotangents: backward(*saved, *cotangents))
  return scan
