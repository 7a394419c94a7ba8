"""Linformer: softmax attention to a fixed number of mixtures of keys and values. State: none.

Wang et al. 2020, arXiv:2006.04768. Theirs: n -> t, k -> rank, d_k -> k, E, F as here.
"""

from collections.abc import Mapping

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Int

from attention.efficient import unordered
from kernels import documents
from kernels.inputs import compute_dtype, product
from layers import heads, history, param
from layers.lengths import blank_past
from layers.sizes import at_least_one


class Linformer(nn.Module):
  """y = softmax(Q (E K)^T / sqrt(k)) F V for each head, and W_o of all y     sec. 4

  E and F mix tokens; they are the same for all heads. The last tokens of a document shorter than `max_len` are zero.
  Departs: nothing.

  Attributes:
    heads: the largest divisor of the width not above 8, if not given.
    rank: mixtures, rows of E. 16 is the Long Range Arena's.
    max_len: where E and F end.
    shared: whether F is E.
    bias: whether the four linear maps have biases.
  Raises:
    ValueError: a size is below 1, heads do not divide the width; when called, a sequence goes beyond `max_len`.
  """

  width: int
  heads: int | None = None
  rank: int = 16
  max_len: int = 4096
  shared: bool = True
  bias: bool = False

  STATE = "none"
  SLOW = ()
  SIDE = ()

  def __post_init__(self):
    heads.count(self)
    at_least_one(self, "rank", "max_len")
    super().__post_init__()

  def setup(self):
    self.qkv = heads.Heads(self.width, heads.count(self), bias=self.bias)
    mixtures = lambda name: param(self, name, heads.GLOROT, (self.max_len, self.rank), (None, None))
    self.E = mixtures("E")
    self.F = self.E if self.shared else mixtures("F")

  def __call__(
    self,
    x: Float[Array, "b t d"],
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> Float[Array, "b t d"]:
    """All tokens."""
    history.require("Linformer", x.shape[1], self.max_len)
    q, k, v = self.qkv(blank_past(x, lengths))
    y = documents.each(_attend, (self.E, self.F), (q, k, v), reset=reset, lengths=lengths)
    return blank_past(self.qkv.out(y), lengths)


def _attend(shared, tokens, lengths) -> Float[Array, "b t h k"]:
  """Keys and values past `lengths` are zero already."""
  q, *kv = tokens
  k, v = (mix(W, z) for W, z in zip(shared, kv))
  return unordered.attend(q, k, v)


def mix(W: Float[Array, "l r"], z: Float[Array, "b t h k"]) -> Float[Array, "b r h k"]:
  """W^T z with W cut to the tokens there are; the sum over them, which are many, is in at least float32."""
  return product("tr,bthk->brhk", W[: z.shape[1]].astype(z.dtype), z, compute_dtype(z)).astype(z.dtype)
