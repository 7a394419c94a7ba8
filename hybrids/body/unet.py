"""A U-net over time, as audio models have it. State: the whole input."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from hybrids import mixer as mixer_lib
from layers import Dense
from layers.history import History, empty
from layers.lengths import blank_past
from layers.mixer import Mixer, Where
from layers.norms import make_norm
from mistake import Mistake


class UNet(Mixer):
  """Windows of tokens become one of a larger width, a stack runs on these, and what it says reaches the next window.

  SaShiMi, Goel et al. 2022, arXiv:2202.09729, sec. 4.2: down-pooling is W of `pool` tokens side by side, up-pooling W
  and its parts one after the other, a window late, so that no token sees a later one; sums join both ways.
  Departs: `step` and `prefill` read all inputs again, which are the state, where the paper's recurrence keeps the
  states of every stage.

  Attributes:
    stack: fields of the `stack` at every stage.
    pools: the tokens of a window, from each stage to the next.
    expand: how much wider each stage is than the one before.
    down: whether there are stacks on the way down, too.
  Raises:
    ValueError: when made, if a size is below 1 or a stack cannot be built; when called, with `reset`: windows reach
      across documents; or if the inputs outgrow the state.
  """

  width: int
  stack: Mapping[str, Any]
  pools: Sequence[int] = (4, 4)
  expand: int = 2
  down: bool = False

  STATE = "whole input"

  def __post_init__(self):
    self.stack, self.pools = mixer_lib.frozen(self.stack), tuple(self.pools)
    if min((self.expand, *self.pools)) < 1:
      raise Mistake(f"unet: pools={self.pools}, expand={self.expand}; each is at least 1")
    super().__post_init__()
    if self._stack(0).STATE == "none":
      raise Mistake("unet: a mixer of its stack reads the whole sequence at once, so that tokens would see later ones")

  def setup(self):
    widths = [self.width * self.expand**i for i in range(len(self.pools) + 1)]
    dense = lambda width: Dense(width, axes=("inner", "embed"))
    self.shrink = [dense(width) for width in widths[1:]]
    self.grow = [dense(width * pool) for width, pool in zip(widths, self.pools)]
    self.ups = [self._stack(i).copy(parent=self, name=f"up_{i}") for i in range(len(self.pools))]
    self.downs = [self._stack(i).copy(parent=self, name=f"down_{i}") for i in range(len(self.pools) * self.down)]
    self.centre = self._stack(len(self.pools)).copy(parent=self, name="centre")
    self.final_norm = make_norm("rms")

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> History:
    return empty(batch, max_len, self.width)

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    if where.reset is not None:
      raise Mistake("body.name='unet' pools over time, so that documents cannot be packed; give each a row of its own")
    t = x.shape[1]
    return self._all(jnp.pad(x, ((0, 0), (0, -t % math.prod(self.pools)), (0, 0))))[:, :t]

  def mix(self, x: Float[Array, "b t d"], state: History, where: Where) -> tuple[Float[Array, "b t d"], History]:
    b, t, _ = x.shape
    room = state.u.shape[1]
    n = jnp.full((b,), t, jnp.int32) if where.lengths is None else where.lengths
    place = state.length[:, None] + jnp.arange(t)
    index = jnp.where(jnp.arange(t) < n[:, None], place, room)
    u = state.u.at[jnp.arange(b)[:, None], index].set(x.astype(state.u.dtype), mode="drop")
    y = self.mix_parallel(blank_past(u.astype(x.dtype), state.length + n), where._replace(lengths=None))
    y = jnp.take_along_axis(y, jnp.minimum(place, room - 1)[..., None], axis=1)
    return jnp.where((place >= room)[..., None], jnp.nan, y), History(u, state.length + n)

  def _all(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
    """Runs the whole net on a number of tokens that all windows divide."""
    skips = []
    for i, (pool, shrink) in enumerate(zip(self.pools, self.shrink)):
      x = self.downs[i](x) if self.down else x
      skips.append(x)
      x = shrink(x.reshape(x.shape[0], x.shape[1] // pool, pool * x.shape[2]))
    x = x + self.centre(x)
    for grow, up, skip in reversed(list(zip(self.grow, self.ups, skips))):
      late = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]
      x = up(skip + grow(late).reshape(skip.shape))
    return self.final_norm(x)

  @nn.nowrap
  def _stack(self, stage: int) -> nn.Module:
    section = {"name": "stack", "last_norm": False, **self.stack}
    return mixer_lib.build_spec(section, width=self.width * self.expand**stage, layer=0, depth=1, parent=None)
