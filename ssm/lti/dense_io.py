"""Dense maps from channels to one complex state and back, and the gate after them, for S5, LRU and their kin."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from layers import activations, project

# of which these have no gate, and the others the tanh form of GELU before it
UNGATED = ("gelu", "gelu_tanh", "none")
ACTIVATIONS = ("half_glu1", "half_glu2", "full_glu", *UNGATED)


def into_state(x: Float[Array, "*b d"], B_re: Float[Array, "n d"], B_im: Float[Array, "n d"]) -> Complex[Array, "*b n"]:
  """Computes B x in at least complex64, as one real product."""
  return jax.lax.complex(*jnp.split(into_parts(x, B_re, B_im), 2, axis=-1))


def into_parts(x: Float[Array, "*b d"], B_re: Float[Array, "n d"], B_im: Float[Array, "n d"]) -> Float[Array, "*b 2*n"]:
  """Computes the real parts of B x, then the imaginary ones, for states that stay real."""
  return project(x, jnp.concatenate([B_re, B_im]).T, jnp.promote_types(x.dtype, jnp.float32))


def read_out(
  h: Complex[Array, "*b n"], C_re: Float[Array, "d n"], C_im: Float[Array, "d n"], dtype: jnp.dtype
) -> Float[Array, "*b d"]:
  """Computes Re(C h) as one real product with factors of `dtype`; the result has the precision of h."""
  return read_parts(jnp.concatenate([h.real, h.imag], axis=-1), C_re, C_im, dtype)


def read_parts(
  parts: Float[Array, "*b m"], C_re: Float[Array, "d n"], C_im: Float[Array, "d n"], dtype: jnp.dtype
) -> Float[Array, "*b d"]:
  """Does the same for real parts, then imaginary ones: m = 2n."""
  return project(parts.astype(dtype), jnp.concatenate([C_re, -C_im], axis=1).T, parts.dtype)


def activate(kind: str, y: Float[Array, "*b d"], gate: Any, value: Any) -> Float[Array, "*b d"]:
  """g s ("half_glu1"), y s ("half_glu2"), value(g) s ("full_glu"), or f(y) for an ungated name, with the tanh
  form of GELU g = GELU(y), and s = sigmoid(gate(g)).

  `gate` and `value` are dense layers, or None where `kind` does not use them.
  """
  if kind in UNGATED:
    return activations.ACTIVATIONS[kind](y)
  g = activations.gelu_tanh(y)
  gated = {"half_glu1": lambda: g, "half_glu2": lambda: y, "full_glu": lambda: value(g)}[kind]()
  return gated * jax.nn.sigmoid(gate(g))
