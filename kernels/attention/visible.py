"""Where tokens stand, and which keys a query sees."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

EVERYONE = 2**31 - 1  # the segment of keys that every token sees


def places(
  q: Float[Array, "b t h k"],
  k: Float[Array, "b s g k"],
  q_position: Int[Array, "b t"] | None,
  k_position: Int[Array, "b s"] | None,
) -> tuple[Int[Array, "b t"], Int[Array, "b s"]]:
  """Returns the positions, which are the tokens' own indices if none are given."""
  index = lambda z: jnp.broadcast_to(jnp.arange(z.shape[1], dtype=jnp.int32), z.shape[:2])
  return (index(q), index(k)) if q_position is None or k_position is None else (q_position, k_position)


def visible(
  q_position: Int[Array, "b t"],
  k_position: Int[Array, "b s"],
  q_segment: Int[Array, "b t"] | None,
  k_segment: Int[Array, "b s"] | None,
  *,
  mask: str,
  window: int | None,
) -> Bool[Array, "b t s"]:
  """Returns which keys each query sees: those of its segment, no later, and in the window; and those for everyone."""
  back = q_position[:, :, None] - k_position[:, None, :]
  see = back >= 0 if mask == "causal" else jnp.ones(back.shape, bool)
  if window is not None:
    see &= back < window
  if q_segment is not None and k_segment is not None:
    see &= (q_segment[:, :, None] == k_segment[:, None, :]) & (k_segment >= 0)[:, None, :]
    see |= (k_segment == EVERYONE)[:, None, :]
  return see
