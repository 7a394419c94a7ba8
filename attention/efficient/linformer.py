"""Linformer: softmax attention to a fixed number of mixtures of keys and values. State: none.

Wang et al. 2020, arXiv:2006.04768. Theirs: n -> t, k -> rank, d_k -> k, E, F as here.
"""

import flax.linen as nn
from jaxtyping import Array, Float

from attention.efficient import unordered
from kernels import documents
from kernels.inputs import compute_dtype, product
from layers import heads, history, param
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one


class Linformer(Mixer):
  """y = softmax(Q (E K)^T / sqrt(k)) F V for each head, and W_o of all y     sec. 4

  E and F mix tokens and are shared by all heads. A document shorter than `max_len` is padded with zeros.
  Departs: nothing.

  Attributes:
    heads: the largest divisor of the width not above 8, if not given.
    rank: number of mixtures, the rows of E; 16 in the Long Range Arena.
    max_len: the longest sequence, the columns of E and F.
    shared: whether F is E.
    bias: whether the four linear maps have biases.
  Raises:
    ValueError: when called, a sequence is longer than `max_len`.
  """

  width: int
  heads: int | None = None
  rank: int = 16
  max_len: int = 4096
  shared: bool = True
  bias: bool = False

  STATE = "none"

  @nn.nowrap
  def check(self) -> None:
    heads.count(self)
    at_least_one(self, "rank", "max_len")

  def setup(self):
    self.qkv = heads.Heads(self.width, heads.count(self), bias=self.bias)
    mixtures = lambda name: param(self, name, heads.GLOROT, (self.max_len, self.rank), (None, None))
    self.E = mixtures("E")
    self.F = self.E if self.shared else mixtures("F")

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    history.require("Linformer", x.shape[1], self.max_len)
    return self.qkv.out(documents.each(_attend, (self.E, self.F), self.qkv(x), **where.masks))


def _attend(shared, tokens, lengths) -> Float[Array, "b t h k"]:
  """Returns one document's outputs; `documents.each` has set keys and values to 0 in the padding already."""
  q, *kv = tokens
  k, v = (mix(W, z) for W, z in zip(shared, kv))
  return unordered.attend(q, k, v)


def mix(W: Float[Array, "l r"], z: Float[Array, "b t h k"]) -> Float[Array, "b r h k"]:
  """Mixtures W^T z, with W cut to the number of tokens. The sum over tokens is long, so it is in at least float32."""
  return product("tr,bthk->brhk", W[: z.shape[1]].astype(z.dtype), z, compute_dtype(z)).astype(z.dtype)
