"""A mixer run one token after the other."""

import functools

import jax
import jax.numpy as jnp


def stepped(module, variables, x, state):
  """The outputs for x "b t d", and the state after each token."""
  step = jax.jit(functools.partial(module.apply, method="step"))
  outputs, states = [], [state]
  for t in range(x.shape[1]):
    y, state = step(variables, x[:, t], states[-1])
    outputs.append(y)
    states.append(state)
  return jnp.stack(outputs, axis=1), states[1:]
