"""Vim: Mamba that reads a sequence both ways between one pair of maps. State: none; the whole sequence is needed.

Zhu et al. 2024, arXiv:2401.09417 (Vision Mamba). Theirs: D -> d, E -> e, N -> state, M -> t.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from layers import ShortConv, reversal
from layers.choices import one_of
from layers.mixer import Masks, Mixer, Where
from layers.sizes import at_least_one
from ssm.selective.mamba import in_and_out, inner_of, s6_within
from ssm.selective.s6 import S6

MERGES = ("sum", "mean")


class Vim(Mixer):
  """y = W_out ((forward(u) + reverse(backward(reverse(u)))) SiLU(z)),  [u, z] = W_in x     alg. 1

  Each direction is a short convolution, SiLU and a selective state space, `S6`, of its own. Documents and rows are
  reversed within themselves, as in `bidirectional`.
  Departs: nothing. Released models take half of the sum, the paper's algorithm the sum.

  Attributes:
    merge: "mean" or "sum" of the directions. All others are those of `Mamba`.
  """

  width: int
  state: int = 16
  expand: int = 2
  inner: int | None = None
  taps: int = 4
  dt_rank: int | None = None
  dt_min: float = 1e-3
  dt_max: float = 1e-1
  dt_floor: float = 1e-4
  bias: bool = False
  conv_bias: bool = True
  merge: str = "mean"
  depth: int = 1

  STATE = "none"

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "state", "expand", "inner", "taps", "dt_rank", "depth")
    one_of(self, merge=MERGES)
    s6_within(self, parent=None)  # raises

  def setup(self):
    self.in_proj, self.out_proj = in_and_out(self)
    conv = lambda: ShortConv(inner_of(self), taps=self.taps, use_bias=self.conv_bias)
    self.conv, self.conv_back = conv(), conv()
    self.forward, self.backward = s6_within(self), s6_within(self)

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    u, z = jnp.split(self.in_proj(x), 2, axis=-1)
    y = _read(self.conv, self.forward, u, where.masks)
    order, reset = reversal.turned(x, where.reset, where.lengths)
    back = _read(self.conv_back, self.backward, reversal.at(u, order), Masks(reset=reset, lengths=where.lengths))
    y = (y + reversal.at(back, order)) * jax.nn.silu(z)
    return self.out_proj(y / 2 if self.merge == "mean" else y)


def _read(conv: ShortConv, s6: S6, u: Float[Array, "b t e"], masks: Masks) -> Float[Array, "b t e"]:
  u, _ = conv(u, conv.init_taps(u.shape[0]), **masks)
  return s6(jax.nn.silu(u), **masks)
