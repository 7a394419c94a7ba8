"""The definition: every expert computes every token, and those that are not chosen have the weight 0."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.inputs import product


def gated(activation: Callable, limit: float | None, z: Float[Array, "*b f"], gate: Float[Array, "*b f"] | None):
  """Returns f(gate) * z, or f(z) without a gate, where a limit bounds the gate from above and z from both sides."""
  if gate is None:
    return activation(z)
  if limit is not None:
    gate, z = jnp.minimum(gate, limit), jnp.clip(z, -limit, limit)
  return activation(gate) * z


def experts(x, chosen, weights, W_in, W_out, W_gate, inside):
  """Returns the sum over all experts."""
  mask = jax.nn.one_hot(chosen, len(W_in), dtype=weights.dtype)
  weights = jnp.sum(mask * weights[..., None], axis=-2)
  everywhere = lambda W: jnp.broadcast_to(W, (*x.shape[:2], *W.shape))
  gate = None if W_gate is None else everywhere(W_gate)
  return of_each(x, weights, everywhere(W_in), everywhere(W_out), gate, inside)


def of_each(
  x: Float[Array, "b t d"],
  weights: Float[Array, "b t k"],
  W_in: Float[Array, "b t k d f"],
  W_out: Float[Array, "b t k f d"],
  W_gate: Float[Array, "b t k d f"] | None,
  inside,
) -> Float[Array, "b t d"]:
  """Returns the weighted sum over k of experts whose matrices each token has for itself."""
  wide = jnp.promote_types(x.dtype, jnp.float32)
  into = lambda W: product("btd,btkdf->btkf", x, W, wide).astype(x.dtype)
  z = inside(into(W_in), None if W_gate is None else into(W_gate))
  return product("btkf,btkfd->btd", z * weights[..., None], W_out, wide).astype(x.dtype)
