"""The gradient of kernels that run forward and backward by themselves, from states that the forward pass keeps."""

from collections.abc import Callable

import jax


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
    y, last, *saved = run(*args, save=True)
    return (y, last), (*args[:state], *args[state + 1 :], *saved)

  scan.defvjp(save, lambda saved, cotangents: backward(*saved, *cotangents))
  return scan
