"""Performer: softmax attention, or another kernel, by random features (FAVOR+). State: fixed (none with mask="full").

Choromanski et al. 2021, arXiv:2009.14794. Theirs: d -> k, m -> features, L -> t, omega_i -> the rows of W.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from attention.efficient import kernelized
from attention.masked import Masked
from kernels import decays, documents, inputs
from kernels.inputs import compute_dtype
from kernels.max_scan import EMPTY
from layers import buffer, heads, log_weights
from layers.choices import one_of
from layers.lengths import blank_past
from layers.mixer import Where
from layers.sizes import at_least_one

FEATURES = {"softmax": jnp.exp, "relu": jax.nn.relu}
EPS = {"softmax": 1e-6, "relu": 1e-3}


class State(NamedTuple):
  S: Float[Array, "b h m n"]  # float32, over e^top; n = p + 1, the last column is the sum of the keys
  top: Float[Array, "b h"] | None  # the largest exponent of a key so far; there is none with kernel="relu"


class Performer(Masked):
  """y_t = sum_s (phi(q_t) . phi(k_s)) v_s / sum_s phi(q_t) . phi(k_s),  phi(x) = exp(W x' - |x'|^2 / 2) + eps

  for each head, sec. 2.2-2.4, x' = x / k^(1/4): in expectation phi(q) . phi(k) / features = exp(q . k / sqrt(k)). Sums
  are over earlier tokens and the current one, or all with mask="full". The rows of W are orthogonal to each other
  within blocks of k, and as long as Gaussian vectors are. With kernel="relu" phi(x) = max(W x', 0) + eps. Departs: W is
  drawn once, when the parameters are made, is no parameter and is kept in the collection "buffers"; eps stands beside
  features over the largest so far, |x'|^2 / 2 included, where the authors' code takes the largest W k' of the whole
  sequence, which a causal model has not seen.

  Attributes:
    heads: the largest divisor of the width not above 8, if not given.
    features: rows of W, the same for all heads. Google's run of ListOps in the Long Range Arena has 2.
    kernel: "softmax" or "relu". The code of the Long Range Arena has relu where its configuration names neither.
    mask: "causal", or "full": a token sees its whole document, and the mixer has no state, prefill or step.
    eps: 1e-6, with kernel="relu" 1e-3, if not given.
    bias: whether the four linear maps have biases.
  """

  width: int
  heads: int | None = None
  features: int = 256
  kernel: str = "softmax"
  mask: str = "causal"
  eps: float | None = None
  bias: bool = False

  @nn.nowrap
  def check(self) -> None:
    heads.count(self)
    at_least_one(self, "features")
    kernelized.check(self)
    one_of(self, kernel=EPS)

  def setup(self):
    count = heads.count(self)
    self.qkv = heads.Heads(self.width, count, bias=self.bias)
    self.W = buffer(self, "W", orthogonal, (self.features, self.width // count), (None, None))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    self._require_state()
    count = heads.count(self)
    S = jnp.zeros((batch, count, self.features, self.width // count + 1))
    return State(S=S, top=jnp.full((batch, count), EMPTY) if self.kernel == "softmax" else None)

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    if self.mask == "causal":
      return super().mix_parallel(x, where)
    q, k, v = self.qkv(x)
    q, k = self._query(q), self._exponents(k)
    whole = functools.partial(_full, self.kernel, self._eps)
    return self.qkv.out(documents.each(whole, (), (q, k, v), **where.masks))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    q, k, v = self.qkv(x)
    q, k = self._query(q), self._exponents(k)
    log_keep, top = jnp.zeros(k.shape[:3], k.dtype), None
    if state.top is not None:
      weights, top = log_weights.scaled(log_keep, k.max(axis=-1), state.top, **where.masks)
      # in the padding the exponent minus `after` may be large, and its exponential infinite
      log_keep, k = weights.log_keep, blank_past(k - weights.after[..., None], where.lengths)
    k = FEATURES[self.kernel](k) + self._eps
    y, S = kernelized.causal(q, k, v, log_keep, state.S, eps=0.0, **where.masks)
    return self.qkv.out(y), State(S, top)

  @property
  def _eps(self) -> float:
    return EPS[self.kernel] if self.eps is None else self.eps

  def _exponents(self, x: Float[Array, "b t h k"]) -> Float[Array, "b t h m"]:
    """Returns the exponent W x' - |x'|^2 / 2, or with kernel="relu" W x', in at least float32."""
    x = x.astype(compute_dtype(x)) * x.shape[-1] ** -0.25
    z = decays.einsum("bthk,mk->bthm", x, self.W.astype(x.dtype))
    return z - jnp.square(x).sum(axis=-1, keepdims=True) / 2 if self.kernel == "softmax" else z

  def _query(self, q: Float[Array, "b t h k"]) -> Float[Array, "b t h m"]:
    """Returns the features phi(q) up to a factor, which cancels in the quotient."""
    z = self._exponents(q)
    largest = jax.lax.stop_gradient(z.max(axis=-1, keepdims=True)) if self.kernel == "softmax" else 0
    return FEATURES[self.kernel](z - largest) + self._eps


def _full(kernel: str, eps: float, _, tokens, lengths) -> Float[Array, "b t h p"]:
  """Returns one document's outputs, from the features of q and the exponents of k."""
  q, k, v = tokens
  valid = None if lengths is None else inputs.valid(lengths, k.shape[1])
  if kernel == "softmax":
    (k,) = inputs.blank(valid, k, value=EMPTY)
    k = k - jax.lax.stop_gradient(k.max(axis=(1, 3), keepdims=True))
  (k,) = inputs.blank(valid, FEATURES[kernel](k) + eps)
  return kernelized.full(q, k, v, eps=0.0)


def orthogonal(key: Array, shape: tuple[int, int], dtype=jnp.float32) -> Float[Array, "m k"]:
  """Returns rows as long as Gaussian vectors of size k, but orthogonal to each other within blocks of k rows."""
  (m, k), (directions, sizes) = shape, jax.random.split(key)
  rows = jax.random.orthogonal(directions, k, (-(-m // k),), dtype).reshape(-1, k)[:m]
  return rows * jnp.linalg.norm(jax.random.normal(sizes, (m, k), dtype), axis=1, keepdims=True)
