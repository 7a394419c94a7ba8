"""The primitives of linear attention, beside flash-linear-attention's in plain torch."""

import functools

import jax
import jax.numpy as jnp

from kernels.delta_rule import delta_rule
from kernels.gated_linear_attention import gated_linear_attention
from kernels.ssd import ssd
from scripts.benchmarks.case import Case, pair
from scripts.peers import fla_ops

SIZE = (2, 1024, 4, 64)  # batch, length, heads, head size


def cases() -> list[Case]:
  """Returns the cases of one decay a head, one a channel, and the delta rules."""
  b, t, h, k = SIZE
  keys = jax.random.split(jax.random.key(0), 6)
  normal = lambda key, *last: jax.random.normal(key, (b, t, h, *last))
  unit = lambda z: z / jnp.linalg.norm(z, axis=-1, keepdims=True)
  q, key, v, beta = (
    unit(normal(keys[0], k)),
    unit(normal(keys[1], k)),
    normal(keys[2], k),
    jax.nn.sigmoid(normal(keys[3])),
  )
  by_head, by_channel = (jax.nn.log_sigmoid(normal(keys[4], *last)) / 16 for last in ((), (k,)))
  S = jnp.zeros((b, h, k, k))

  def delta(q, key, v, beta, log_a=None, low_rank=False):
    # what is found has decayed already
    find = key if log_a is None else key * jnp.exp(log_a)
    stored = beta[..., None] * key
    return delta_rule(q, stored, v, find, S, -stored if low_rank else None, log_a)

  by_row = by_head[..., None]
  low_rank = functools.partial(delta, low_rank=True)
  return [
    *_group(
      "one decay a head",
      "ssd",
      lambda q, key, v, log_a: ssd(q, key, v, log_a, S),
      (q, key, v, by_head),
      "naive_chunk_simple_gla",
      "naive_parallel_simple_gla",
    ),
    *_group(
      "one decay a channel",
      "gated_linear_attention",
      lambda q, key, v, log_a: gated_linear_attention(q, key, v, log_a, S),
      (q, key, v, by_channel),
      "naive_recurrent_gla",
    ),
    *_group("delta rule", "delta_rule", delta, (q, key, v, beta), "delta_rule_chunkwise"),
    *_group(
      "delta rule, one decay a head", "delta_rule", delta, (q, key, v, beta, by_row), "naive_chunk_gated_delta_rule"
    ),
    *_group("delta rule, one decay a channel", "delta_rule", delta, (q, key, v, beta, by_channel), "naive_chunk_kda"),
    *_group("decay and any rank one", "delta_rule", low_rank, (q, key, v, beta, by_channel), "dplr_chunkwise"),
  ]


def _group(what: str, name: str, fn, args: tuple, *peers: str) -> list[Case]:
  b, t, h, k = SIZE
  group = f"{what}, B{b} L{t}, {h} heads of {k}"
  return [
    *pair(group, f"ours ({name})", fn, args),
    *(case for peer in peers for case in fla_ops.cases(peer, group, SIZE)),
  ]
