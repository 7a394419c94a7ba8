"""Which keys a query sees."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def visible(
  q_position: Int[Array, "b t"],
  k_position: Int[Array, "b s"],
  q_segment: Int[Array, "b t"] | None,
  k_segment: Int[Array, "b s"] | None,
  *,
  mask: str,
  window: int | None,
) -> Bool[Array, "b t s"]:
  """Same segment, not an empty slot; not later if causal; less than `window` tokens back."""
  back = q_position[:, :, None] - k_position[:, None, :]
  see = back >= 0 if mask == "causal" else jnp.ones(back.shape, bool)
  if window is not None:
    see &= back < window
  if q_segment is not None and k_segment is not None:
    see &= (q_segment[:, :, None] == k_segment[:, None, :]) & (k_segment >= 0)[:, None, :]
  return see
