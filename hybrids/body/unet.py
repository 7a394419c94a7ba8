"""A U-net over time, as audio models have it. State: that of its stacks, and at most one window of tokens a stage."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hybrids import mixer as mixer_lib
from kernels.inputs import Lengths
from layers import Dense
from layers.lengths import blank_past
from layers.mixer import Mixer, Where
from layers.norms import make_norm
from mistake import Mistake


class Stage(NamedTuple):
  """The state of one stage, between two calls."""

  down: Any  # the state of the stack on the way down, None if there is none
  up: Any  # the state of the stack on the way up
  window: Float[Array, "b w d"]  # the tokens of a window that is not complete, padded on the right
  filled: Int[Array, "b"]  # how many they are
  late: Float[Array, "b e"]  # the next stage's output for the last complete window


class State(NamedTuple):
  """The state of all stages."""

  stages: tuple[Stage, ...]
  centre: Any  # the state of the stack at the bottom


class UNet(Mixer):
  """Windows of tokens become one of a larger width, a stack runs on these, and its outputs reach the next window.

  SaShiMi, Goel et al. 2022, arXiv:2202.09729, sec. 4.2: down-pooling is W of `pool` tokens side by side, up-pooling W
  and its parts one after the other, a window late, so that no token sees a later one; sums join both ways. In `step`
  the stages below run only at the last token of a window.

  Attributes:
    stack: fields of the `stack` at every stage.
    pools: the tokens of a window, from each stage to the next.
    expand: how much wider each stage is than the one before.
    down: whether there are stacks on the way down, too.
  Raises:
    ValueError: when made, if a size is below 1 or a stack cannot be built; when called with `reset`, as windows reach
      across documents.
  """

  width: int
  stack: Mapping[str, Any]
  pools: Sequence[int] = (4, 4)
  expand: int = 2
  down: bool = False

  def __post_init__(self):
    self.stack, self.pools = mixer_lib.frozen(self.stack), tuple(self.pools)
    if min((self.expand, *self.pools)) < 1:
      raise Mistake(f"unet: pools={self.pools}, expand={self.expand}; each is at least 1")
    super().__post_init__()
    if self.STATE == "none":
      raise Mistake("unet: a mixer of its stack reads the whole sequence at once, so that tokens would see later ones")

  @property
  def STATE(self) -> str:
    """Returns the STATE of its stacks."""
    return self._stack(0).STATE

  def setup(self):
    dense = lambda width: Dense(width, axes=("inner", "embed"))
    self.shrink = [dense(self._width(i + 1)) for i in range(len(self.pools))]
    self.grow = [dense(self._width(i) * pool) for i, pool in enumerate(self.pools)]
    self.ups = [self._stack(i).copy(parent=self, name=f"up_{i}") for i in range(len(self.pools))]
    self.downs = [self._stack(i).copy(parent=self, name=f"down_{i}") for i in range(len(self.pools) * self.down)]
    self.centre = self._stack(len(self.pools)).copy(parent=self, name="centre")
    self.final_norm = make_norm("rms")

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    stages = []
    for i, pool in enumerate(self.pools):
      stack = self._stack(i).init_state(batch, max_len)
      window, late = jnp.zeros((batch, pool - 1, self._width(i))), jnp.zeros((batch, self._width(i + 1)))
      stages.append(Stage(stack if self.down else None, stack, window, jnp.zeros((batch,), jnp.int32), late))
      max_len = max_len // pool + 1
    return State(tuple(stages), self._stack(len(self.pools)).init_state(batch, max_len))

  @nn.nowrap
  def apart(self, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the variables with those of each stack's layers apart; see `Stack`."""
    return self._each_stack(variables, "apart")

  @nn.nowrap
  def together(self, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the inverse of `apart`."""
    return self._each_stack(variables, "together")

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    self._refuse_documents(where)
    t, skips = x.shape[1], []
    x = jnp.pad(x, ((0, 0), (0, -t % math.prod(self.pools)), (0, 0)))
    for i, (pool, shrink) in enumerate(zip(self.pools, self.shrink)):
      x = self.downs[i](x) if self.down else x
      skips.append(x)
      x = shrink(x.reshape(x.shape[0], x.shape[1] // pool, pool * x.shape[2]))
    x = x + self.centre(x)
    for grow, up, skip in reversed(list(zip(self.grow, self.ups, skips))):
      late = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]
      x = up(skip + grow(late).reshape(skip.shape))
    return self.final_norm(x)[:, :t]

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    self._refuse_documents(where)
    y, state = self._from(0, x, state, where.lengths)
    return self.final_norm(y), state

  def _from(
    self, i: int, x: Float[Array, "b t d"], state: State, lengths: Lengths
  ) -> tuple[Float[Array, "b t d"], State]:
    """Runs stage i and those below it, and returns the output of stage i and the state with theirs."""
    if i == len(self.pools):
      y, centre = _resume(self.centre, x, state.centre, lengths)
      return x + y, state._replace(centre=centre)
    stage, pool = state.stages[i], self.pools[i]
    b, t, d = x.shape
    down = stage.down
    if self.down:
      x, down = _resume(self.downs[i], x, down, lengths)
    # the tokens of all windows that these rows touch, from the first token of the first one
    n = stage.filled + (t if lengths is None else lengths)
    place = jnp.arange(-(-(pool - 1 + t) // pool) * pool)
    index = jnp.where(place < stage.filled[:, None], place, place + pool - 1 - stage.filled[:, None])
    tokens = blank_past(_take(jnp.concatenate([stage.window.astype(x.dtype), x], 1), index), n)
    coarse = self.shrink[i](tokens.reshape(b, -1, pool * d))
    complete = n // pool
    if t == 1:
      run = lambda unet, coarse, state, complete: unet._from(i + 1, coarse, state, complete)
      skip = lambda unet, coarse, state, complete: (jnp.zeros_like(coarse), state)
      y, state = nn.cond(jnp.any(complete > 0), run, skip, self, coarse, state, complete)
    else:
      y, state = self._from(i + 1, coarse, state, complete)
    late = jnp.concatenate([stage.late[:, None].astype(y.dtype), y], 1)
    grown = self.grow[i](late[:, :-1]).reshape(tokens.shape)
    y, up = _resume(self.ups[i], x + _take(grown, stage.filled[:, None] + jnp.arange(t)), stage.up, lengths)
    window = _take(tokens, complete[:, None] * pool + jnp.arange(pool - 1)).astype(stage.window.dtype)
    late = _take(late, complete[:, None])[:, 0].astype(stage.late.dtype)
    filled = n - complete * pool
    window = blank_past(window, filled) if pool > 1 else window
    stage = Stage(down, up, window, filled, late)
    return y, state._replace(stages=(*state.stages[:i], stage, *state.stages[i + 1 :]))

  @nn.nowrap
  def _refuse_documents(self, where: Where) -> None:
    if where.reset is not None:
      raise Mistake(
        "body.name='unet' pools over time, so that documents cannot be packed; give each a row of its own, as the "
        "tasks 'sounds' and 'noise' do"
      )

  @nn.nowrap
  def _each_stack(self, variables: Mapping[str, Any], method: str) -> dict[str, Any]:
    made = {collection: dict(tree) for collection, tree in variables.items()}
    names = [*(f"{way}_{i}" for i in range(len(self.pools)) for way in ("down", "up")), "centre"]
    for name in names:
      stage = len(self.pools) if name == "centre" else int(name.split("_")[1])
      own = {collection: tree[name] for collection, tree in variables.items() if name in tree}
      for collection, tree in getattr(self._stack(stage), method)(own).items() if own else ():
        made[collection][name] = tree
    return made

  @nn.nowrap
  def _width(self, stage: int) -> int:
    return self.width * self.expand**stage

  @nn.nowrap
  def _stack(self, stage: int) -> nn.Module:
    section = {"name": "stack", "last_norm": False, **self.stack}
    return mixer_lib.build_spec(section, width=self._width(stage), layer=0, depth=1, parent=None)


def _resume(stack: nn.Module, x: Float[Array, "b t d"], state: Any, lengths: Lengths) -> tuple:
  """Continues a stack; by its form for one token where every row has one."""
  if x.shape[1] > 1 or lengths is not None:
    return stack.prefill(x, state, lengths=lengths)
  y, state = stack.step(x[:, 0], state)
  return y[:, None], state


def _take(x: Float[Array, "b t d"], index: Int[Array, "b s"]) -> Float[Array, "b s d"]:
  """Returns x[b, index[b, s]]; an index past the end gives the last."""
  return jnp.take_along_axis(x, jnp.minimum(index, x.shape[1] - 1)[..., None], axis=1)
