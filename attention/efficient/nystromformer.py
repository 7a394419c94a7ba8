"""Nystromformer: softmax attention from its values at a few landmarks, means of neighbouring tokens. State: none.

Xiong et al. 2021, arXiv:2102.03902. Theirs: n -> t, m -> landmarks, d_q -> k, Z* -> the result of `pseudo_inverse`.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from attention.efficient.unordered import softmax
from kernels import decays, documents
from kernels.inputs import compute_dtype, valid
from kernels.short_conv import short_conv
from layers import heads, param
from layers.initializers import uniform_fan_in
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one
from mistake import Mistake


class Nystromformer(Mixer):
  """y = softmax(Q K~^T / sqrt(k)) softmax(Q~ K~^T / sqrt(k))^+ softmax(Q~ K^T / sqrt(k)) V + c(V)     sec. 3, fig. 2

  for each head, and W_o of all y. Q~ and K~ are means over `landmarks` segments of the document, the inverse is that of
  `pseudo_inverse`, and c a convolution over tokens, one kernel for each head, centred on the token. Departs: segments
  differ by one token in length where their number does not divide the document's, and a document shorter than the
  number of landmarks has one at every token; the authors' code needs lengths that divide. The authors' code can start
  the inverse from the largest column sum of the whole batch; here each matrix starts from its own.

  Attributes:
    heads: the largest divisor of the width not above 8, if not given.
    taps: width of the convolution; odd, or 0 for none. 35 in the authors' runs of the Long Range Arena.
    iterations: iterations of the inverse.
    bias: whether the four linear maps have biases.
  """

  width: int
  heads: int | None = None
  landmarks: int = 128
  taps: int = 35
  iterations: int = 6
  bias: bool = False

  STATE = "none"

  @nn.nowrap
  def check(self) -> None:
    heads.count(self)
    at_least_one(self, "landmarks", "iterations")
    if self.taps < 0 or (self.taps and self.taps % 2 == 0):
      raise Mistake(f"Nystromformer: taps={self.taps}; an odd number looks both ways alike, 0 is no convolution")

  def setup(self):
    count = heads.count(self)
    self.qkv = heads.Heads(self.width, count, bias=self.bias)
    if self.taps:
      self.kernel = param(self, "kernel", uniform_fan_in(self.taps), (self.taps, count), ("taps", "heads"))

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    whole = functools.partial(_whole, self.landmarks, self.iterations)
    kernel = self.kernel if self.taps else None
    return self.qkv.out(documents.each(whole, kernel, self.qkv(x), **where.masks))


def _whole(landmarks: int, iterations: int, kernel, tokens, lengths) -> Float[Array, "b t h k"]:
  q, k, v = tokens
  b, t, _, size = q.shape
  wide = compute_dtype(q, k, v)
  n = jnp.full(b, t, jnp.int32) if lengths is None else lengths
  q, k = (z.astype(wide) * size**-0.25 for z in (q, k))
  q_means, k_means, live = segment_means(min(landmarks, t), n, q, k)
  scores = lambda x, y, see: softmax(jnp.einsum("bihk,bjhk->bhij", x, y), see)[0]
  first = scores(q, k_means, live[:, None, None])
  middle = jnp.where(live[:, None, :, None], scores(q_means, k_means, live[:, None, None]), 0)
  last = scores(q_means, k, valid(n, t)[:, None, None])
  values = jnp.einsum("bhij,bjhp->bhip", last, v.astype(wide))
  y = jnp.einsum("bhti,bhij,bhjp->bthp", first, pseudo_inverse(middle, iterations), values).astype(v.dtype)
  return y if kernel is None else y + _around(v, kernel)


def segment_means(
  m: int, n: Int[Array, "b"], *arrays: Float[Array, "b t h k"]
) -> tuple[Float[Array, "b m h k"] | Bool[Array, "b m"], ...]:
  """Returns means of each array over min(m, n) segments of its first n tokens, and a mask of those among m entries."""
  t, segments = arrays[0].shape[1], jnp.minimum(n, m)[:, None]
  segment = jnp.arange(t) * segments // jnp.maximum(n, 1)[:, None]
  member = (segment[:, None] == jnp.arange(m)[:, None]) & valid(n, t)[:, None]
  share = member / jnp.maximum(member.sum(axis=2, keepdims=True), 1)
  return *(jnp.einsum("bmt,bthk->bmhk", share.astype(z.dtype), z) for z in arrays), jnp.arange(m) < segments


def pseudo_inverse(A: Float[Array, "*b m m"], iterations: int) -> Float[Array, "*b m m"]:
  """Returns the limit of Z <- Z (13 I - A Z (15 I - A Z (7 I - A Z))) / 4, started at A^T / (|A|_1 |A|_inf)     sec. 3

  Rows and columns of zeros stay zeros. Rows of A add up to 1, so |A|_inf = 1.
  """
  largest = A.sum(axis=-2).max(axis=-1)[..., None, None]
  Z, eye = A.swapaxes(-1, -2) / jnp.where(largest == 0, 1, largest), jnp.eye(A.shape[-1], dtype=A.dtype)
  # in full precision: an error of one iteration grows in the next
  times = functools.partial(decays.einsum, "...ij,...jk->...ik")
  for _ in range(iterations):
    AZ = times(A, Z)
    Z = times(Z, 13 * eye - times(AZ, 15 * eye - times(AZ, 7 * eye - AZ))) / 4
  return Z


def _around(v: Float[Array, "b t h p"], kernel: Float[Array, "w h"]) -> Float[Array, "b t h p"]:
  """sum_i kernel_i v_{t - (w-1)/2 + i}, as a causal convolution whose output is shifted by half its width."""
  taps, (b, t, _, p) = kernel.shape[0], v.shape
  late = jnp.pad(v.reshape(b, t, -1), ((0, 0), (0, taps // 2), (0, 0)))
  none = jnp.zeros((b, taps - 1, late.shape[-1]), late.dtype)
  return short_conv(late, jnp.repeat(kernel, p, axis=1), none)[0][:, taps // 2 :].reshape(v.shape)
