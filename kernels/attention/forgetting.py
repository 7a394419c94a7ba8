"""Attention that forgets: sums of log forget gates, as more entries of queries and keys, so that every form has them.

Lin et al. 2025, arXiv:2503.02130, sec. 3. With c_t the sum of log f up to t, the score q_i . k_j + log f_{j+1} + ... +
log f_i is the product [c_i, 1, q_i] . [1, -c_j, k_j].
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kernels import dispatch

Sums = tuple[Float[Array, "b _ g r"], Float[Array, "b _ g r"]]  # as `kernels.decays.running_sums` has them


def with_sums(
  q: Float[Array, "b t h k"], k: Float[Array, "b s g k"], q_sums: Sums, k_sums: Sums, *, scale: float
) -> tuple[Float[Array, "b t h e"], Float[Array, "b s g e"]]:
  """Returns queries and keys whose products are scale q . k + q_sums - k_sums.

  The new entries come first. Where products are added up in their order, as in `cpp`, the difference of two sums is
  then as exact as if what lies between them were added up alone: high parts that are close have an exact difference,
  and those that are not make a weight of 0. Elsewhere a score can be off by what rounding takes from a sum: 2^-24 of
  it, or 1e-3 once gates are e^-16,000 in all. Accelerators, which may multiply float32 as bfloat16, get parts that are
  exact in both: three of 8 bits, as many as a float32 has.

  Args:
    q, k: in at least float32, as are their gradients: that of a gate is the difference of long sums of these.
    q_sums, k_sums: up to each query and key, from any place before all of them, for each head of queries: r share a
      group's keys. That of a query adds the same to all its scores. Its gradient is 0 but for rounding, which is that
      of the keys', too, and cancels.
  """
  own, one = own_sum(q, k.shape[2]), jnp.ones((*k.shape[:3], 1), k.dtype)
  q_new, k_new = [], []
  for of_q, of_k in zip(_parts(q_sums), _parts(k_sums)):
    q_new += [of_q.reshape(*q.shape[:3], 1).astype(q.dtype), own]
    k_new += [one, -of_k.astype(k.dtype)]
  join = lambda *parts: jnp.concatenate(parts, axis=-1)
  return join(*q_new, (q * scale).astype(q.dtype)), join(*k_new, k)


def own_sum(q: Float[Array, "*b h k"], groups: int) -> Float[Array, "*b h r"]:
  """Returns entries of queries that choose, among the r sums beside a group's key, the one of their own head."""
  heads = q.shape[-2]
  own = jnp.tile(jnp.eye(heads // groups, dtype=q.dtype), (groups, 1))
  return jnp.broadcast_to(own, (*q.shape[:-1], own.shape[1]))


def _parts(sums: Sums) -> list[Float[Array, "b _ g r"]]:
  """Returns what adds up to the sums; the first has the gradient."""
  high, low = lax.stop_gradient(sums)
  parts = [high, low]
  if dispatch.multiplies_bfloat16():
    narrow = lambda z: lax.reduce_precision(z, exponent_bits=8, mantissa_bits=7)
    first = narrow(high)
    rest = (high - first) + low
    second = narrow(rest)
    parts = [first, second, narrow(rest - second)]
  return [parts[0] + (sums[0] - high), *parts[1:]]
