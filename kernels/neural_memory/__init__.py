"""The memory of Titans: a small network, trained on one token after the other by gradient descent."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kernels import decays, dispatch, inputs, nonfinite, op, sequence_parallel
from kernels.neural_memory import reference, xla
from mistake import Mistake

IMPLS: dispatch.Impls = {
  "xla": (xla.neural_memory, dispatch.always),
  "reference": (reference.neural_memory, dispatch.always),
}


class Memory(NamedTuple):
  """The state of `neural_memory`: one array for each layer of the network."""

  start: tuple[Float[Array, "b h ..."], ...]  # the weights with which the document's current chunk began
  weights: tuple[Float[Array, "b h ..."], ...]
  momentum: tuple[Float[Array, "b h ..."], ...]
  length: Int[Array, "b"]  # tokens of the document so far; at 0 the others mean nothing


_LETTERS: Any = Memory(*("b h",) * 3, "b")  # type: ignore[arg-type]
OVER = sequence_parallel.Over(
  (*("b t h k",) * 2, "b t h p", *("b t h",) * 3, "h", _LETTERS, None, None, "b t", "b t"),
  "b t h p",
  state=7,
  exchange=sequence_parallel.InTurn(),
)


def neural_memory(
  q: Float[Array, "b t h k"],
  k: Float[Array, "b t h k"],
  v: Float[Array, "b t h p"],
  rate: Float[Array, "b t h"],
  log_eta: Float[Array, "b t h"],
  log_keep: Float[Array, "b t h"],
  initial: tuple[Float[Array, "h ..."], ...],
  memory: Memory,
  *,
  chunk: int,
  bounded: bool = False,
  reset: inputs.Reset = None,
  lengths: inputs.Lengths = None,
  impl: str = "auto",
) -> tuple[Float[Array, "b t h p"], Memory]:
  """S_t = eta_t S_{t-1} - rate_t grad |M(k_t) - v_t|^2,  M_t = keep_t M_{t-1} + S_t;  all M_t(q_t) and the last memory.

  M(x) = W_L^T silu(.. silu(W_1^T x)), L the number of `initial` weights, and S has their shapes. The gradient is taken
  at the weights with which the token's chunk of `chunk` tokens began, counted from the document's start; before its
  first token M is `initial` and S is 0. Behrouz, Zhong & Mirrokni 2025, arXiv:2501.00663, sec. 3.1 and 3.2.

  Args:
    log_eta, log_keep: at most 0, and minus infinity is fine.
    bounded: lowers rates to what keeps a chunk of equal tokens from overshooting, see `reference.bounded_rate`, and eta
      to at most 1 - 1 / max(chunk, 2). Momentum that lasts longer than a chunk moves the memory on while other keys
      come, or rates are small, and may move it farther each time.
    memory, reset, lengths, impl: as in all ops, see `kernels`.

  Raises:
    ValueError: `chunk` is below 1.
  """
  if chunk < 1:
    raise Mistake(f"neural_memory: chunk={chunk}; it must be at least 1")
  dtype, where = (
    inputs.compute_dtype(q, k, v, rate, log_eta, log_keep, *memory.weights),
    op.rows(v.shape[1], reset, lengths),
  )
  log_eta = jnp.minimum(log_eta, math.log1p(-1 / max(chunk, 2))) if bounded else log_eta
  *tokens, log_eta, log_keep = op.cast(dtype, *where.fill(q, k, v, rate, log_eta, log_keep))
  logs = (jnp.maximum(z, decays.least(dtype)) for z in (log_eta, log_keep))
  arrays, _, after = nonfinite.contain(where.reset, None, *tokens, *logs)
  initial, start, weights, momentum = (tuple(op.cast(dtype, *layers)) for layers in (initial, *memory[:3]))
  memory = Memory(start, weights, momentum, memory.length)
  valid = jnp.ones(v.shape[:2], bool) if where.valid is None else where.valid
  args = *arrays, initial, memory, chunk, bounded, valid, where.reset
  y, last = op.run("neural_memory", IMPLS, impl, args, where, out=v, state=memory, after=after, over=OVER)
  return y, Memory(*last)


def recall(weights: tuple[Float[Array, "b h ..."], ...], q: Float[Array, "b t h k"]) -> Float[Array, "b t h p"]:
  """Returns M(q) for a memory that is not trained, in at least float32; see `neural_memory`."""
  dtype = inputs.compute_dtype(q, *weights)
  return jax.vmap(jax.vmap(reference.apply, in_axes=(None, 0)))(op.cast(dtype, *weights), q.astype(dtype))
