"""`attention` by JAX's splash kernels for TPUs. Interpreted and lowered in the tests, but never run on a TPU by us."""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jaxtyping import Array

from kernels import dispatch, inputs, tpu

BLOCK = 512  # queries and keys, at most


def attention(q, k, v, q_position, k_position, q_segment, k_segment, *, mask, window, scale, softcap, **_):
  """Scores are never in memory. What fills up the last lanes stands after all tokens, in a segment of its own.

  Queries are multiplied by `scale` first, and rounded once more if they are of 16 bits.
  """
  t = q.shape[1]
  segment = jnp.zeros(q.shape[:2], jnp.int32) if q_segment is None and mask == "full" and t % tpu.LANES else q_segment
  if segment is not None:
    k, v = inputs.blank(segment >= 0, k, v)
    segment = _filled(segment, -1)

  def run(q, k, v, segment):
    size = q.shape[1]
    visible = masks.FullMask((size, size)) if mask == "full" else masks.CausalMask((size, size))
    if window is not None:
      visible = masks.LocalMask((size, size), (window - 1, 0), 0)
    block = tpu.divisor(size, BLOCK, tpu.LANES)
    names = "q kv kv_compute q_dkv kv_dkv kv_dkv_compute q_dq kv_dq"
    kernel = splash.make_splash_mha_single_device(
      masks.MultiHeadMask([visible] * q.shape[2]),
      block_sizes=splash.BlockSizes(**{f"block_{name}": block for name in names.split()}),
      attn_logits_soft_cap=softcap,
    )
    ids = None if segment is None else splash.SegmentIds(segment, segment)
    heads = lambda z: z.swapaxes(1, 2)
    y = jax.vmap(kernel)(heads((q * scale).astype(q.dtype)), heads(k), heads(v), ids)
    return (heads(y),)

  axes = ("b t h k", "b t g k", "b t g p", "b t")
  return dispatch.shard(run, axes, ("b t h p",))(*map(_filled, (q, k, v)), segment)[0][:, :t]


def why_not(q, k, v, *where, mask, window, scale, softcap, weights, slopes, decays) -> str | None:
  """Returns why the splash attention kernels cannot run these arguments, or None."""
  if reason := dispatch.elsewhere("tpu"):
    return reason
  q_position, _, q_segment, k_segment = where
  reasons = {
    "a TPU computes in 32 bits": any(z.dtype == jnp.float64 for z in (q, k, v)),
    f"it needs as many queries as keys, and some, not {q.shape[1]} and {k.shape[1]}": not 0 < q.shape[1] == k.shape[1],
    "it knows no places but the tokens' own indices": q_position is not None,
    # such queries see at least themselves; others might see nothing
    "it needs queries and keys to have the same segments, one array": q_segment is not k_segment,
    "its window needs mask='causal'": window is not None and mask != "causal",
    f"it has no weights {weights!r}": weights != "softmax",
    "it has no slopes": slopes is not None,
    "it has no decays": decays is not None,
  }
  return next((reason for reason, applies in reasons.items() if applies), None)


def _filled(z: Array, fill: int = 0) -> Array:
  """ "b t ..." with t filled up to whole lanes."""
  more = ((0, 0), (0, -z.shape[1] % tpu.LANES), *((0, 0),) * (z.ndim - 2))
  return jnp.pad(z, more, constant_values=fill)
