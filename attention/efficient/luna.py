"""Luna: tokens attend to a few vectors, which have attended to all tokens. State: none.

Ma et al. 2021, arXiv:2106.01540. Theirs: n -> t, l -> packed, P as here, Y_P -> what `_whole` calls packed.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from attention.efficient import unordered
from kernels import documents
from layers import Dense, heads, param, project
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one


class Luna(Mixer):
  """Y_P = Attn(P, X, X),  y = Attn(X, Y_P, Y_P), Attn being softmax attention with heads     sec. 3

  and W_o of all y. P is a parameter. Departs: each layer has its own P, where the paper's layers pass Y_P on to the
  next; biases start at 0.

  Attributes:
    heads: the largest divisor of the width not above 8, if not given.
    packed: number of vectors in P; the paper tries 16, 128 and 256.
    tied: whether the values are the keys, in both attentions.
    bias: whether the linear maps have biases.
  """

  width: int
  heads: int | None = None
  packed: int = 256
  tied: bool = False
  bias: bool = True

  STATE = "none"

  @nn.nowrap
  def check(self) -> None:
    heads.count(self)
    at_least_one(self, "packed")

  def setup(self):
    smaller = nn.initializers.variance_scaling(0.5, "fan_avg", "uniform")
    dense = lambda axis: Dense(self.width, use_bias=self.bias, kernel_init=smaller, axes=("embed", axis))
    self.P = param(self, "P", nn.initializers.normal(self.width**-0.5), (self.packed, self.width), (None, "embed"))
    self.pq_proj, self.pk_proj, self.q_proj = dense("heads"), dense("kv"), dense("heads")
    self.pv_proj = self.pk_proj if self.tied else dense("kv")
    # Y_P becomes keys and values once for each document, inside a loop where no module can be called
    zeros, shape = nn.initializers.zeros, (self.width, self.width)
    kernel = lambda name: param(self, f"{name}_kernel", smaller, shape, ("embed", "kv"))
    bias = lambda name: param(self, f"{name}_bias", zeros, shape[1:], ("kv",)) if self.bias else jnp.zeros(self.width)
    self.to_k = kernel("k"), bias("k")
    self.to_v = self.to_k if self.tied else (kernel("v"), bias("v"))
    self.out_proj = Dense(self.width, use_bias=self.bias, kernel_init=heads.GLOROT, axes=("heads", "embed"))

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    count = heads.count(self)
    tokens = tuple(heads.split(proj(x), count) for proj in (self.q_proj, self.pk_proj, self.pv_proj))
    P = heads.split(self.pq_proj(self.P.astype(x.dtype)), count)
    y = documents.each(_whole, (P, self.to_k, self.to_v), tokens, **where.masks)
    return self.out_proj(y.reshape(x.shape))


def _whole(shared, tokens, lengths) -> Float[Array, "b t h k"]:
  (P, *maps), (q, pk, pv) = shared, tokens
  b, _, h, _ = q.shape
  packed = unordered.attend(jnp.broadcast_to(P, (b, *P.shape)), pk, pv, lengths=lengths)
  packed = packed.reshape(b, P.shape[0], -1)
  k, v = (heads.split(project(packed, W, q.dtype) + bias.astype(q.dtype), h) for W, bias in maps)
  return unordered.attend(q, k, v)
