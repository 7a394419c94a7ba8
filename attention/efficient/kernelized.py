"""Attention whose weights are phi(q) . phi(k): what Linear Transformers and Performers share.

The state is one matrix a head, sum_s phi(k_s) [v_s, 1]^T: its last column adds up the keys, and its product with a
query is the numerator and the denominator side by side.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kernels.attention import MASKS
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
  reset: Bool[Array, "b t"] | None,
  lengths: Int[Array, "b"] | None,
) -> tuple[Float[Array, "b t h p"], Float[Array, "b h m n"]]:
  """sum_{s<=t} (q_t . k_s) v_s / (sum_{s<=t} q_t . k_s + eps) from the state S, and the state after.

  Args:
    q, k: features, of which no product is negative.
    log_a: 0, or by what the features of earlier keys are to be rescaled; it cancels but for eps.
  """
  y, S = ssd(q, k, beside_one(v), log_a, S, reset=reset, lengths=lengths)
  return _quotient(y, eps).astype(v.dtype), S


def full(
  q: Float[Array, "b t h m"], k: Float[Array, "b t h m"], v: Float[Array, "b t h p"], *, eps: float
) -> Float[Array, "b t h p"]:
  """The same with sums over all tokens; keys that are 0 are not there."""
  S = jnp.einsum("bthm,bthn->bhmn", k, beside_one(v))
  return _quotient(jnp.einsum("bthm,bhmn->bthn", q, S), eps).astype(v.dtype)


def _quotient(y: Float[Array, "b t h n"], eps: float) -> Float[Array, "b t h p"]:
  """Past a row's length, where there is nothing, 0."""
  total = y[..., -1:] + eps
  return y[..., :-1] / jnp.where(total == 0, 1, total)


def require_state(module: Any) -> None:
  """Refuses a mixer whose mask is "full".

  Raises:
    ValueError: it has no state.
  """
  if module.mask == "full":
    name = type(module).__name__
    raise Mistake(f"{name}: mask='full' sees later tokens, so it has no state; call it, or use mask='causal'")


def check(module: Any) -> None:
  """Refuses what no kernelized attention can be built with.

  Raises:
    ValueError: `mask` is unknown, or eps is negative.
  """
  one_of(module, mask=MASKS)
  if module.eps is not None and module.eps < 0:
    raise Mistake(f"{type(module).__name__}: eps={module.eps}; it must not be negative")
