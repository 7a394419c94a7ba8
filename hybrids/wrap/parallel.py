"""Several mixers side by side in one layer; the state is the most demanding of theirs."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from hybrids import branch as branch_lib
from hybrids import mixer as mixer_lib
from hybrids.branch import Branch
from kernels.inputs import Lengths, Reset
from layers import Dense
from layers.choices import one_of
from layers.mixer import STATES, Mixer, Where
from mistake import Mistake

JOINS = ("sum", "mean", "concat")


class Parallel(Mixer):
  """The sum or the mean of what several branches make of x, or W of their answers side by side ("concat").

  Each branch is a mixer's section, or fields of a `Branch`: its own norm before or after, and its own scales. Unlike
  those of a stack it has no norm and no sum with x unless they are asked for. GPT-NeoX's branches have norm_position
  "pre" each, Hymba's "output" and the mean, Falcon-H1's `input_scale` and `scale`.
  If mixers offer arrays to later layers, the branches after the first offer theirs as NAME_1, NAME_2 ….

  Attributes:
    branches: at least one.
  Raises:
    ValueError: there is none, a name is unknown, or a mixer cannot be built.
  """

  width: int
  branches: Sequence[Mapping[str, Any]]
  join: str = "sum"
  layer: int = 0
  depth: int = 1

  def __post_init__(self):
    self.branches = tuple(map(mixer_lib.frozen, self.branches))
    one_of(self, join=JOINS)
    if not self.branches:
      raise Mistake("parallel: branches is empty; give the section of at least one mixer")
    if not any(getattr(branch.bare(parent=None), "layer", 0) for branch in self._each()):
      # layers are then alike, and made and run by one loop
      self.layer = 0
    super().__post_init__()

  @property
  def STATE(self) -> str:
    """Returns the most demanding STATE among its mixers."""
    return max((branch.STATE for branch in self._each()), key=STATES.index)

  @property
  def SIDE(self) -> tuple[str, ...]:
    """Returns the names of the inputs per token that any of its mixers reads."""
    each = list(enumerate(self._each()))
    own = {_own(name, i) for i, branch in each if mixer_lib.offers(branch.bare(parent=None)) for name in branch.SIDE}
    return tuple(sorted(own | {name for _, branch in each for name in branch.SIDE}))

  def setup(self):
    self.parts = [branch.copy(parent=self, name=f"branch_{i}") for i, branch in enumerate(self._each())]
    if self.join == "concat":
      self.out_proj = Dense(self.width, axes=("inner", "embed"))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> tuple:
    return tuple(branch.init_state(batch, max_len) for branch in self._each())

  def mix(self, x: Float[Array, "b t d"], state: tuple, where: Where) -> tuple[Float[Array, "b t d"], tuple]:
    both = [
      part.prefill(x, own, **where.masks, side=_known(part, i, where.side))
      for i, (part, own) in enumerate(zip(self.parts, state))
    ]
    return self._join([y for y, _ in both]), tuple(own for _, own in both)

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    return self._join([part(x, **where.masks, side=_known(part, i, where.side)) for i, part in enumerate(self.parts)])

  def mix_token(
    self, x: Float[Array, "b d"], state: tuple, side: Mapping[str, Array]
  ) -> tuple[Float[Array, "b d"], tuple]:
    both = [part.step(x, own, side=_known(part, i, side)) for i, (part, own) in enumerate(zip(self.parts, state))]
    return self._join([y for y, _ in both]), tuple(own for _, own in both)

  def offer(
    self, x: Float[Array, "b t d"], state: tuple | None, *, reset: Reset = None, lengths: Lengths = None
  ) -> Mapping[str, Array]:
    """Returns the arrays that the branches offer to later layers."""
    found: dict[str, Array] = {}
    for i, part in enumerate(self.parts):
      if mixer_lib.offers(part.bare(parent=None)):
        # beside a branch without a state there is none for all of them
        own = state[i] if state else part.init_state(*x.shape[:2]) if part.STATE != "none" else None
        offered = part.offer(x, own, reset=reset, lengths=lengths)
        found |= {_own(name, i): value for name, value in offered.items()}
    return found

  @property
  def OFFERS(self) -> bool:
    """Returns whether any of its mixers has arrays for later layers."""
    return any(mixer_lib.offers(branch.bare(parent=None)) for branch in self._each())

  def _join(self, answers: list[Array]) -> Float[Array, "*b d"]:
    if self.join == "concat":
      return self.out_proj(jnp.concatenate(answers, axis=-1))
    total = sum(answers[1:], answers[0])
    return total / len(answers) if self.join == "mean" else total

  @nn.nowrap
  def _each(self) -> list[Branch]:
    """Returns the branches, without variables."""
    made = []
    for index, section in enumerate(self.branches):
      place = {"width": self.width, "layer": self.layer, "depth": self.depth}
      fields = {"skip": 0.0, "norm_position": "none", **place, **branch_lib.fields(section)}
      mixer_lib.check_fields(Branch, fields, f"parallel branch {index}")
      made.append(Branch(**fields, parent=None))
    return made


def _own(name: str, i: int) -> str:
  return f"{name}_{i}" if i else name


def _known(branch: Branch, i: int, side: Mapping[str, Array]) -> dict[str, Array]:
  """Returns the inputs per token that branch i reads: what it has offered itself comes first."""
  return {
    name: side[_own(name, i) if _own(name, i) in side else name]
    for name in branch.SIDE
    if {name, _own(name, i)} & set(side)
  }
