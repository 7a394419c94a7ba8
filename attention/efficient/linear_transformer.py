"""Linear attention: weights phi(q) . phi(k), phi(x) = elu(x) + 1. State: fixed (none with mask="full").

Katharopoulos et al. 2020, arXiv:2006.16236. Theirs: D -> k, M -> p, N -> t, s -> S, z -> the last column of S.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from attention.efficient import kernelized
from kernels import documents
from kernels.inputs import blank, compute_dtype, valid
from layers import heads
from layers.lengths import blank_past


class State(NamedTuple):
  """What one layer remembers."""

  S: Float[Array, "b h k n"]  # float32; n = p + 1, the last column is the sum of the keys


class LinearTransformer(nn.Module):
  """y_t = phi(q_t)^T S_t / (phi(q_t) . z_t + eps),  S_t = S_{t-1} + phi(k_t) v_t^T,  z_t = z_{t-1} + phi(k_t)

  for each head, eqs. (16)-(20), and W_o of all y; with mask="full" the sums are over all tokens, eq. (5). Departs:
  nothing.

  Attributes:
    heads: the largest divisor of the width not above 8, if not given.
    mask: "causal", or "full": every token of the document is seen, there is no state, and __call__ is all there is.
    eps: keeps the quotient finite.
    bias: whether the four linear maps have biases.
  Raises:
    ValueError: a size is below 1, heads do not divide the width, `mask` is unknown, eps is negative; `init_state`,
      `prefill` or `step` with mask="full".
  """

  width: int
  heads: int | None = None
  mask: str = "causal"
  eps: float = 1e-6
  bias: bool = False

  SLOW = ()
  SIDE = ()

  @property
  def STATE(self) -> str:
    """'none' with mask="full", else 'fixed'."""
    return "none" if self.mask == "full" else "fixed"

  def __post_init__(self):
    heads.count(self)
    kernelized.check(self)
    super().__post_init__()

  def setup(self):
    self.qkv = heads.Heads(self.width, heads.count(self), bias=self.bias)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    """Zeros."""
    del max_len
    kernelized.require_state(self)
    count = heads.count(self)
    size = self.width // count
    return State(S=jnp.zeros((batch, count, size, size + 1)))

  def __call__(
    self,
    x: Float[Array, "b t d"],
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> Float[Array, "b t d"]:
    """All tokens from an empty state, or all tokens of a document at once."""
    if self.mask == "causal":
      return self.prefill(x, self.init_state(*x.shape[:2]), reset=reset, lengths=lengths)[0]
    q, k, v = self.qkv(blank_past(x, lengths))
    y = documents.each(functools.partial(_full, self.eps), (), (q, k, v), reset=reset, lengths=lengths)
    return blank_past(self.qkv.out(y), lengths)

  def prefill(
    self,
    x: Float[Array, "b t d"],
    state: State,
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> tuple[Float[Array, "b t d"], State]:
    """All tokens from `state`."""
    kernelized.require_state(self)
    q, k, v = self.qkv(blank_past(x, lengths))
    keep = jnp.zeros(k.shape[:3], state.S.dtype)
    y, S = kernelized.causal(phi(q), phi(k), v, keep, state.S, eps=self.eps, reset=reset, lengths=lengths)
    return blank_past(self.qkv.out(y), lengths), State(S)

  def step(
    self, x: Float[Array, "b d"], state: State, *, side: Mapping[str, Array] | None = None
  ) -> tuple[Float[Array, "b d"], State]:
    """One token."""
    y, state = self.prefill(x[:, None], state)
    return y[:, 0], state


def phi(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
  """elu(x) + 1, in at least float32     eq. (7)."""
  x = x.astype(compute_dtype(x))
  # e^x itself: what is left of it beside 1 would be 0 from x = -17 on
  return jnp.where(x > 0, x + 1, jnp.exp(jnp.minimum(x, 0)))


def _full(eps: float, _, tokens, lengths) -> Float[Array, "b t h p"]:
  q, k, v = tokens
  k = phi(k)
  if lengths is not None:
    (k,) = blank(valid(lengths, k.shape[1]), k)
  return kernelized.full(phi(q), k, v, eps=eps)
