"""Attention with the weights phi(q) . phi(k), shared by Linear Transformers and Performers.

The state is one matrix for each head, sum_s phi(k_s) [v_s, 1]^T. Its last column is the sum of the keys, so its product
with a query gives the numerator and the denominator side by side.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.attention import MASKS
from kernels.inputs import Lengths, Reset
from kernels.ssd import ssd
from layers.choices import one_of
from layers.sums import beside_one
from mistake import Mistake


def causal(
  q: Float[Array, "b t h m"],
  k: Float[Array, "b t h m"],
  v: Float[Array, "b t h p"],
  log_a: Float[Array, "b t h"],
  S: Float[Array, "b h m n"],
  *,
  eps: float,
  reset: Reset,
  lengths: Lengths,
) -> tuple[Float[Array, "b t h p"], Float[Array, "b h m n"]]:
  """Returns sum_{s<=t} (q_t . k_s) v_s / (sum_{s<=t} q_t . k_s + eps), starting from the state S, and the next state.

  Args:
    q, k: features phi(q) and phi(k), whose products are never negative.
    log_a: logarithm of the factor that rescales the features of earlier keys, or 0. It cancels up to eps.
  """
  y, S = ssd(q, k, beside_one(v), log_a, S, reset=reset, lengths=lengths)
  return _quotient(y, eps).astype(v.dtype), S


def full(
  q: Float[Array, "b t h m"], k: Float[Array, "b t h m"], v: Float[Array, "b t h p"], *, eps: float
) -> Float[Array, "b t h p"]:
  """Returns outputs with sums over all tokens. Keys in the padding must be 0."""
  S = jnp.einsum("bthm,bthn->bhmn", k, beside_one(v))
  return _quotient(jnp.einsum("bthm,bhmn->bthn", q, S), eps).astype(v.dtype)


def _quotient(y: Float[Array, "b t h n"], eps: float) -> Float[Array, "b t h p"]:
  """Returns the numerator over the denominator plus eps; 0 in the padding, where both are 0."""
  total = y[..., -1:] + eps
  return y[..., :-1] / jnp.where(total == 0, 1, total)


def check(module: Any) -> None:
  """Checks the fields `mask` and `eps`.

  Raises:
    ValueError: `mask` is unknown, or eps is negative.
  """
  one_of(module, mask=MASKS)
  if module.eps is not None and module.eps < 0:
    raise Mistake(f"{type(module).__name__}: eps={module.eps}; it must not be negative")
