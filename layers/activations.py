"""Activation functions, by the names that modules' fields use.

GELU has two: "gelu" is x Phi(x), Phi the normal distribution function, by erf; "gelu_tanh" the approximation
x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2 (both Hendrycks & Gimpel 2016, arXiv:1606.08415), up to 5e-4 away.
"relu2" is the square of max(x, 0) (So et al. 2021, arXiv:2109.08668).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def gelu(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
  """x Phi(x)."""
  return jax.nn.gelu(x, approximate=False)


def gelu_tanh(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
  """x Phi(x), with a hyperbolic tangent in place of erf."""
  return jax.nn.gelu(x, approximate=True)


def relu2(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
  """max(x, 0)^2."""
  return jnp.square(jax.nn.relu(x))


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  "gelu": gelu,
  "gelu_tanh": gelu_tanh,
  "none": lambda x: x,
  "relu": jax.nn.relu,
  "relu2": relu2,
  "sigmoid": jax.nn.sigmoid,
  "silu": jax.nn.silu,
  "tanh": jnp.tanh,
}


def some(*names: str) -> dict[str, Callable[[jax.Array], jax.Array]]:
  """Returns the functions of these names alone, for a module that offers a choice of them."""
  return {name: ACTIVATIONS[name] for name in names}
