"""SS2D: an image is read along four paths by a selective state space each. State: none; the whole image is needed.

Liu et al. 2024, arXiv:2401.10166 (VMamba). Theirs: C -> d, D -> e, N -> state, L -> t.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from layers import LayerNorm, images, reversal
from layers.image_conv import DepthwiseImageConv
from layers.lengths import blank_past
from layers.mixer import Mixer, Where
from layers.paths import path, rank
from layers.sizes import at_least_one
from mistake import Mistake
from ssm.selective.mamba import in_and_out, inner_of, s6_within
from ssm.selective.s6 import S6

ORDERS = ("row", "column", "row_reversed", "column_reversed")


class SS2D(Mixer):
  """y = W_out norm(sum_k back_k(S6_k(u along path k))),  u = SiLU(conv(W_in x))     sec. 4.3

  Paths go by rows and by columns, and back; each has maps, A and D of its own. The convolution is depthwise, over
  neighbouring pixels. Each document is an image, which begins at its first token. This is the second version of the
  authors' code, which has no gate beside the scans.
  Departs: nothing.

  Attributes:
    taps: side of the square of pixels that the convolution reads; odd.
    rows, columns: the image's, whose pixels come row by row; the two factors of the sequence's length nearest to each
      other if not given.
    bias, norm_eps: whether the maps have biases, and the epsilon of the norm. All others are those of `Mamba`.
  Raises:
    ValueError: when called, if `rows` and `columns` do not make the sequence's length.
  """

  width: int
  state: int = 1
  expand: int = 2
  inner: int | None = None
  taps: int = 3
  dt_rank: int | None = None
  dt_min: float = 1e-3
  dt_max: float = 1e-1
  dt_floor: float = 1e-4
  bias: bool = False
  conv_bias: bool = False
  norm_eps: float = 1e-5
  rows: int | None = None
  columns: int | None = None
  depth: int = 1

  STATE = "none"

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "state", "expand", "inner", "taps", "dt_rank", "rows", "columns", "depth")
    if self.taps % 2 == 0:
      raise Mistake(f"SS2D: taps={self.taps}; the pixel stands in the middle of its neighbours, so it must be odd")
    self._paths(parent=None)  # raises

  def setup(self):
    inner = inner_of(self)
    self.in_proj, self.out_proj = in_and_out(self, gates=0)
    self.conv = DepthwiseImageConv(inner, taps=self.taps, use_bias=self.conv_bias)
    self.paths = self._paths()
    self.out_norm = LayerNorm(eps=self.norm_eps, axis="inner")

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    rows, columns = images.sides("SS2D", x.shape[1], dict(rows=self.rows, columns=self.columns))
    # a bias would fill the padding, which the convolution reads
    u = jax.nn.silu(self.conv(blank_past(self.in_proj(x), where.lengths), columns, **where.masks))
    orders = [path(rank(name, rows, columns), x.shape[0], where.reset, where.lengths) for name in ORDERS]
    # documents keep their places in the row, so they begin and end where they did, and one scan reads all paths
    along = jnp.concatenate([reversal.at(u, order) for order in orders], axis=-1)
    parts = jnp.split(self.paths(along, **where.masks), len(ORDERS), axis=-1)
    y = sum(reversal.at(part, jnp.argsort(order, axis=1)) for part, order in zip(parts, orders))
    return self.out_proj(self.out_norm(y))

  @nn.nowrap
  def _paths(self, **kwargs) -> S6:
    count = len(ORDERS)
    return s6_within(self, width=count * inner_of(self), heads=count, groups=count, **kwargs)
