"""Softmax attention to a set of keys whose order does not matter."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kernels.attention import attention
from kernels.inputs import Lengths, valid


def attend(
  q: Float[Array, "b t h k"], k: Float[Array, "b s h k"], v: Float[Array, "b s h p"], *, lengths: Lengths = None
) -> Float[Array, "b t h p"]:
  """Returns outputs sum_s softmax_s(q . k_s / sqrt(k)) v_s over the first `lengths` keys; 0 where that is none."""
  if lengths is None:
    return attention(q, k, v, mask="full")
  q_segment, k_segment = jnp.zeros(q.shape[:2], jnp.int32), jnp.where(valid(lengths, k.shape[1]), 0, -1)
  return attention(q, k, v, q_segment=q_segment, k_segment=k_segment, mask="full")


def softmax(scores: Float[Array, "*b s"], see: Bool[Array, "..."]) -> tuple[Float[Array, "*b s"], Float[Array, "*b"]]:
  """Returns weights of the scores under the mask `see`, and the log of the sum of their exponentials; 0 for none."""
  see = jnp.broadcast_to(see, scores.shape)
  top = jnp.max(scores, axis=-1, keepdims=True, where=see, initial=jnp.finfo(scores.dtype).min)
  powers = jnp.where(see, jnp.exp(jnp.where(see, scores - top, 0)), 0)
  total = jnp.sum(powers, axis=-1, keepdims=True)
  total = jnp.where(total == 0, 1, total)
  return powers / total, (top + jnp.log(total))[..., 0]
