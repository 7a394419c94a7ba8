"""The cell of mLSTM, a matrix with exponential gates and a normaliser, kept over its largest weight.

Beck et al. 2024, arXiv:2405.04517, eqs. (19)-(27). Theirs: C, n, m as here, i~ -> i, f~ -> f, d -> k.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.inputs import Lengths, Reset
from kernels.max_scan import EMPTY
from kernels.ssd import ssd
from layers.log_weights import scaled
from layers.sums import beside_one


def empty(
  batch: int, heads: int, key_size: int, value_size: int
) -> tuple[Float[Array, "b h k q"], Float[Array, "b h"]]:
  """Returns C, whose last column is the normaliser n, and m before any token: zeros, and the logarithm of no weight."""
  return jnp.zeros((batch, heads, key_size, value_size + 1)), jnp.full((batch, heads), EMPTY)


def mlstm_cell(
  q: Float[Array, "b t h k"],
  k: Float[Array, "b t h k"],
  v: Float[Array, "b t h p"],
  i: Float[Array, "b t h"],
  log_f: Float[Array, "b t h"],
  C: Float[Array, "b h k q"],
  m: Float[Array, "b h"],
  *,
  eps: float,
  reset: Reset = None,
  lengths: Lengths = None,
  impl: str = "auto",
) -> tuple[Float[Array, "b t h p"], Float[Array, "b h k q"], Float[Array, "b h"]]:
  """C_t = f_t C_{t-1} + e^{i_t} k_t v_t^T / sqrt(k), n likewise with 1 for v; h_t = C_t^T q_t / max(|n_t . q_t|, 1).

  Returns all h, in at least float32, and the last C and m. As m is the logarithm of the largest weight so far, and C
  and n are kept over e^m, no exponential overflows. As in the authors' code, eps e^m is added to the divisor.

  Args:
    i: logarithms of the new weights.
    log_f: at most 0.
    C, m: those before the first token, n being the last column of C; see `empty`.
    impl: the implementation of `kernels.ssd`.
  """
  weights, m = scaled(log_f, i, m, reset=reset, lengths=lengths)
  k = k * (weights.new * k.shape[-1] ** -0.5)[..., None]
  read, C = ssd(q, k, beside_one(v), weights.log_keep, C, reset=reset, lengths=lengths, impl=impl)
  divisor = jnp.maximum(jnp.abs(read[..., -1:]), jnp.exp(-weights.after)[..., None]) + eps
  return read[..., :-1] / divisor, C, m
