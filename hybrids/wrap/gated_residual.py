"""Several residual streams, read by weights for each entry and written by one weight each; the state is the mixer's.

As in `models/qwen4_exp` of transformers, after Zhu et al. 2024, arXiv:2409.19606 (hyper-connections). Theirs:
hc_count -> streams, hc_lowrank -> rank.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hybrids import mixer as mixer_lib
from hybrids.wrap.one_stream import OneStream
from layers import Dense, RMSNorm
from layers.sizes import at_least_one


class Gather(nn.Module):
  """z = mean_i sigmoid(W_i SiLU(V u / n)) * u_i for n streams x_i side by side, u_i = norm(x_i) by entry scaled.

  Attributes:
    width: of all streams together.
    rank: entries of V u.
    writes: whether there are weights 2 sigmoid(B u / n) for writing to the streams, too.
  """

  width: int
  streams: int
  rank: int
  norm_eps: float = 1e-6
  writes: bool = False

  def setup(self):
    self.norm = RMSNorm(eps=self.norm_eps, groups=self.streams)
    self.down = Dense(self.rank, axes=("embed", None))
    self.up = Dense(self.width, axes=(None, "embed"))
    if self.writes:
      self.write = Dense(self.streams, axes=("embed", None))

  def __call__(self, x: Float[Array, "*b e"]) -> tuple[Float[Array, "*b d"], Float[Array, "*b n"] | None]:
    """Returns z, and the weights for writing if there are any."""
    u = self.norm(x)
    weights = jax.nn.sigmoid(self.up(jax.nn.silu(self.down(u) / self.streams)))
    z = jnp.mean((weights * u).reshape(*x.shape[:-1], self.streams, -1), axis=-2)
    return z, 2 * jax.nn.sigmoid(self.write(u) / self.streams) if self.writes else None


class GatedResidual(OneStream):
  """x_i <- x_i + w_i f(z) with z and w of a `Gather` of the streams x_i, which stand side by side in x.

  The mixer f is given the width of one stream, and no norm but that within z. Departs: nothing.

  Attributes:
    mixer: f, by `name` and arguments.
    streams: how many there are; the width is that of all together.
    rank: of the weights that read the streams; an eighth of the width, if not given.
    norm_eps: the epsilon of the norms.
  Raises:
    ValueError: the streams do not divide the width, a number is out of range, or the mixer cannot be built.
  """

  width: int
  mixer: Mapping[str, Any]
  streams: int = 4
  rank: int | None = None
  norm_eps: float = 1e-6
  layer: int = 0
  depth: int = 1

  def __post_init__(self):
    self.mixer = mixer_lib.frozen(self.mixer)
    at_least_one(self, "rank")
    super().__post_init__()
    self.inside(parent=None)

  def setup(self):
    rank = self.rank or max(1, self.width // 8)
    self.gather = Gather(self.width, self.streams, rank, self.norm_eps, writes=True)
    self.inner = self.inside()

  def collapse(
    self, x: Float[Array, "*b e"], side: Mapping[str, Array]
  ) -> tuple[Float[Array, "*b d"], tuple[Float[Array, "*b e"], Float[Array, "*b n"]]]:
    """Returns the mixer's input; the streams, and the weights of its output."""
    z, weights = self.gather(x)
    assert weights is not None, "it writes"
    return z, (x, weights)

  @nn.nowrap
  def expand(
    self, y: Float[Array, "*b d"], kept: tuple[Float[Array, "*b e"], Float[Array, "*b n"]]
  ) -> Float[Array, "*b e"]:
    x, weights = kept
    return x + (weights[..., None] * y[..., None, :]).reshape(x.shape)
