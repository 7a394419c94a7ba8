"""Stages of a model of events: stacks whose first layer leaves one event of each window. State: none."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from hybrids import mixer as mixer_lib
from hybrids import pattern as pattern_lib
from hybrids.body.shortening import Shortening
from hybrids.body.stack import Stack
from kernels.inputs import Lengths
from layers import Dense
from layers.choices import one_of
from layers.event_pool import MODES, event_pool
from layers.mixer import Where
from layers.sizes import at_least_one
from mistake import Mistake


class EventStages(Shortening):
  """x becomes pool(x) + first(f(x) - x) with the first layer f of each stage, and goes on through the stage's others.

  Event-SSM (Schöne et al. 2024, arXiv:2404.18508, `SequenceStage` of its code): what goes past the first mixer of a
  stage is pooled, and of what the mixer adds each window's first event is taken. The gaps of a window, side["dt"], are
  summed; layers that read them, such as `event_ssm`, get those of their stage. Windows that are not complete at the end
  of a row are dropped, so that it puts out t / pool^stages events of width `out_width`.
  Departs: their D reads the pooled input, ours the first event of a window; where a stage is wider than the one before,
  a linear map between its first and its other layers makes it so, where theirs is part of the first layer.

  Attributes:
    stages: fields of a `stack` for each stage, of two letters at least; there is no last norm unless they say so.
    pool: events of a window.
    mode: what stands for a window past the mixer, see `layers.event_pool`: "first", "last", "mean" or "time".
    expand: how much wider each stage is than the one before.
  Raises:
    ValueError: when made, if there is no stage, a size is below 1, the mode is unknown or a stack cannot be built; when
      called, with `reset`.
  """

  width: int
  stages: Sequence[Mapping[str, Any]]
  pool: int = 8
  mode: str = "mean"
  expand: int = 1

  def __post_init__(self):
    self.stages = tuple(map(mixer_lib.frozen, self.stages))
    one_of(self, mode=MODES)
    at_least_one(self, "pool", "expand")
    if not self.stages:
      raise Mistake("stages: there is none; give the fields of a stack for each")
    super().__post_init__()
    self._stacks()

  @property
  def SIDE(self) -> tuple[str, ...]:
    """Returns "dt", the gaps, which pooling sums whether or not a mixer reads them."""
    return ("dt",)

  @property
  def out_width(self) -> int:
    """Returns the width of the outputs."""
    return self.width * self.expand ** (len(self.stages) - 1)

  def setup(self):
    stacks = [
      (f"{name}_{i}", stack) for i, pair in enumerate(self._stacks()) for name, stack in zip(("first", "rest"), pair)
    ]
    self.stacks = [stack.copy(parent=self, name=name) for name, stack in stacks]
    grown = [self.width * self.expand**i for i in range(1, len(self.stages))] if self.expand > 1 else []
    self.grow = [Dense(width, axes=("inner", "embed")) for width in grown]

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b s e"]:
    if where.reset is not None:
      raise Mistake("body.name='event_stages' pools over time, so that documents cannot be packed")
    dt, lengths = where.side.get("dt", jnp.ones(x.shape[:2])), where.lengths
    run = lambda stack, x: stack(x, lengths=lengths, side={"dt": dt} if "dt" in stack.SIDE else None)
    for i, (first, rest) in enumerate(zip(self.stacks[::2], self.stacks[1::2])):
      added = event_pool(run(first, x) - x, dt, stride=self.pool, mode="first", lengths=lengths)[0]
      past, dt, lengths = event_pool(x, dt, stride=self.pool, mode=self.mode, lengths=lengths)
      x = past + added
      x = run(rest, self.grow[i - 1](x) if i and self.expand > 1 else x)
    return x

  @nn.nowrap
  def ends(self, gaps: Float[Array, "b t"], lengths: Lengths) -> tuple[Float[Array, "b s"], Lengths]:
    """Returns the gaps before the outputs, and how many of each row there are."""
    for _ in self.stages:
      _, gaps, lengths = event_pool(gaps[..., None], gaps, stride=self.pool, mode="first", lengths=lengths)
    return gaps, lengths

  @nn.nowrap
  def _stacks(self) -> list[tuple[nn.Module, nn.Module]]:
    """Builds for each stage the stack of its first layer and that of the others."""
    return [self._split(i, {"last_norm": False, **stage}) for i, stage in enumerate(self.stages)]

  @nn.nowrap
  def _split(self, i: int, section: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    mixer_lib.check_fields(Stack, {"width": self.width, **section}, f"stages[{i}]")
    letters = pattern_lib.tile(section["pattern"], section["depth"])
    if len(letters) < 2:
      raise Mistake(f"stages[{i}]: it has {len(letters)} layers; the first one pools, so give pattern and depth of two")
    build = lambda width, **fields: mixer_lib.build_spec(
      {"name": "stack", **section, **fields}, width=width, layer=0, depth=1, parent=None
    )
    own, before = self.width * self.expand**i, self.width * self.expand ** max(i - 1, 0)
    first = build(before, pattern=letters[0], depth=1, last_norm=False)
    return first, build(own, pattern="".join(letters[1:]), depth=len(letters) - 1)
