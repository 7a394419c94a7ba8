"""Linear attention: weights phi(q) . phi(k), phi(x) = elu(x) + 1. State: fixed (none with mask="full").

Katharopoulos et al. 2020, arXiv:2006.16236. Theirs: D -> k, M -> p, N -> t, s -> S, z -> the last column of S.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from attention.efficient import kernelized
from attention.masked import Masked
from kernels import documents
from kernels.inputs import blank, compute_dtype, valid
from layers import heads
from layers.mixer import Where


class State(NamedTuple):
  S: Float[Array, "b h k n"]  # float32; n = p + 1, the last column is the sum of the keys


class LinearTransformer(Masked):
  """y_t = phi(q_t)^T S_t / (phi(q_t) . z_t + eps),  S_t = S_{t-1} + phi(k_t) v_t^T,  z_t = z_{t-1} + phi(k_t)

  for each head, eqs. (16)-(20), and W_o of all y; with mask="full" the sums are over all tokens, eq. (5). Departs:
  nothing.

  Attributes:
    heads: the largest divisor of the width not above 8, if not given.
    mask: "causal", or "full": a token sees its whole document, and the mixer has no state, prefill or step.
    eps: keeps the quotient finite.
    bias: whether the four linear maps have biases.
  """

  width: int
  heads: int | None = None
  mask: str = "causal"
  eps: float = 1e-6
  bias: bool = False

  @nn.nowrap
  def check(self) -> None:
    heads.count(self)
    kernelized.check(self)

  def setup(self):
    self.qkv = heads.Heads(self.width, heads.count(self), bias=self.bias)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    self._require_state()
    count = heads.count(self)
    size = self.width // count
    return State(S=jnp.zeros((batch, count, size, size + 1)))

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    if self.mask == "causal":
      return super().mix_parallel(x, where)
    q, k, v = self.qkv(x)
    whole = functools.partial(_full, self.eps)
    return self.qkv.out(documents.each(whole, (), (q, k, v), **where.masks))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    q, k, v = self.qkv(x)
    log_keep = jnp.zeros(k.shape[:3], state.S.dtype)
    y, S = kernelized.causal(phi(q), phi(k), v, log_keep, state.S, eps=self.eps, **where.masks)
    return self.qkv.out(y), State(S)


def phi(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
  """Returns the feature map elu(x) + 1, computed in at least float32     eq. (7)."""
  x = x.astype(compute_dtype(x))
  # for negative x this is e^x; computed as (e^x - 1) + 1 it would round to 0 below x = -17
  return jnp.where(x > 0, x + 1, jnp.exp(jnp.minimum(x, 0)))


def _full(eps: float, _, tokens, lengths) -> Float[Array, "b t h p"]:
  q, k, v = tokens
  k = phi(k)
  if lengths is not None:
    (k,) = blank(valid(lengths, k.shape[1]), k)
  return kernelized.full(phi(q), k, v, eps=eps)
