"""Computes the decay and the input factor of one token under each rule of discretisation."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from kernels.phi import phi1

RULES = ("euler", "zoh")


def discretize(
  dt: Float[Array, "*t e"], A: Inexact[Array, "e n"], disc: str
) -> tuple[Inexact[Array, "*t e n"], Inexact[Array, "*t e #n"]]:
  """Returns exp(dt A), and the factor of x B: dt ("euler") or (exp(dt A) - 1) / A ("zoh")."""
  dt = dt[..., None]
  return jnp.exp(dt * A), dt if disc == "euler" else dt * phi1(dt * A)


def not_real_euler(h: Inexact[Array, "b e n"], disc: str) -> str | None:
  """Returns why a kernel with real A and the authors' discretisation alone cannot run these arguments, or None."""
  if disc != "euler":
    return f"disc={disc!r}; it knows 'euler' alone"
  return "the states are complex" if jnp.iscomplexobj(h) else None
