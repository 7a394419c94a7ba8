"""The definition of `attention`."""

import jax.numpy as jnp

from kernels import inputs
from kernels.attention.visible import places, visible
from kernels.attention.weights import POINTWISE


def attention(
  q, k, v, q_position, k_position, q_segment, k_segment, *, mask, window, scale, softcap, weights, slopes, decays
):
  """Computes all scores at once, with keys and values repeated for the heads that share them."""
  dtype = inputs.compute_dtype(q, k, v)
  q_position, k_position = places(q, k, q_position, k_position)
  if k_segment is not None:
    k, v = inputs.blank(k_segment >= 0, k, v)
  k, v = (jnp.repeat(z, q.shape[2] // z.shape[2], axis=2).astype(dtype) for z in (k, v))
  see = visible(q_position, k_position, q_segment, k_segment, mask=mask, window=window)[:, None]
  back = (q_position[:, :, None] - k_position[:, None, :]).astype(dtype)
  if decays is None:
    scores = scale * jnp.einsum("bthk,bshk->bhts", q.astype(dtype), k)
  else:
    # later keys, which nobody sees, would make it overflow
    left = jnp.exp(jnp.asarray(decays, dtype) * jnp.maximum(back, 0)[..., None])
    scores = scale * jnp.einsum("bthk,bshk,btsk->bhts", q.astype(dtype), k, left)
  if softcap is not None:
    scores = softcap * jnp.tanh(scores / softcap)
  if slopes is not None:
    scores -= jnp.asarray(slopes, dtype)[:, None, None] * jnp.abs(back)[:, None]
  if weights in POINTWISE:
    return jnp.einsum("bhts,bshp->bthp", jnp.where(see, POINTWISE[weights](scores)[0], 0), v)
  # The largest visible score is subtracted; a row that sees nothing keeps finite numbers throughout and gets weight 0.
  top = jnp.max(scores, axis=-1, keepdims=True, where=see, initial=jnp.finfo(scores.dtype).min)
  powers = jnp.where(see, jnp.exp(jnp.where(see, scores - top, 0)), 0)
  total = jnp.sum(powers, axis=-1, keepdims=True)
  return jnp.einsum("bhts,bshp->bthp", powers / jnp.where(total == 0, 1, total), v)
