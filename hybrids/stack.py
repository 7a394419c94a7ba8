"""A model's layers: blocks in the order of a pattern. A stack is itself a mixer.

Parameters of Stack(width=64, depth=7, pattern="m-", …) with m=mamba and "-"=mlp: the pattern repeats every 2 layers, so
3 groups run in one loop and their parameters are stacked; layer 6 is left over.

  groups/0_mamba/norm/scale             (3, 64)     layers 0, 2, 4
  groups/0_mamba/mixer/in_proj/kernel   (3, 64, 256)
  groups/1_mlp/mixer/in_proj/kernel     (3, 64, 256)   layers 1, 3, 5
  layers/6_mamba/mixer/in_proj/kernel   (64, 256)
  initial_state/0_h                     (128, 16)   only with learn_state: one a layer, never stacked
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import errors
from flax.core import meta, scope
from jaxtyping import Array, Bool, Float, Int

from hybrids import blocks
from hybrids import mixer as mixer_lib
from hybrids import pattern as pattern_lib
from hybrids.block import Block
from layers.lengths import blank_past
from mistake import Mistake

# what only training changes: the running averages of batch norm
FROZEN_IN_EVALUATION = ("batch_stats",)


class Stack(nn.Module):
  """x passed through `depth` blocks, one for each letter of the tiled pattern.

  Blocks are pure functions of parameters that the stack owns, so that repeated groups of the pattern run in one
  `lax.scan` in `__call__` and `prefill`, whatever else they keep: batch statistics and sown values are collected by
  layer, and every layer has random keys of its own. `step` is unrolled. The state is a tuple over layers.

  Attributes:
    depth: number of letters, that is of residual branches.
    mixers: for each letter, the mixer's `name` and arguments.
    remat: what the backward pass recomputes: "none", "full" (all of each block) or "dots" (all but matrix products).
    unroll: how many groups one iteration of the loop holds.
    learn_state: the state that `fixed` mixers start from is a parameter, which `start` and `__call__` use. It excludes
      `reset`, which clears a state to zero and not to what was learned.
  Raises:
    ValueError: when made, if a field does not fit: a letter has no mixer, a mixer no such argument, …
  """

  width: int
  depth: int
  pattern: str
  mixers: Mapping[str, Mapping[str, Any]]
  norm: str = "rms"
  norm_position: str = "pre"
  dropout: float = 0.0
  remat: str = "none"
  unroll: int = 1
  learn_state: bool = False

  def __post_init__(self):
    self.mixers = mixer_lib.frozen(self.mixers)
    super().__post_init__()
    if self.remat not in blocks.REMAT:
      raise Mistake(f"no remat {self.remat!r}; choose from {list(blocks.REMAT)}")
    if self.unroll < 1:
      raise Mistake(f"unroll={self.unroll}; one iteration holds at least 1 group")
    pattern_lib.check(self.pattern, self.mixers)
    states = {mixer.STATE for mixer in self._kinds()}
    if self.learn_state and (states & {"none"} or not states & {"fixed"}):
      raise Mistake(
        f"learn_state needs mixers that have a state, one of them fixed; those of {self.pattern!r} are {sorted(states)}"
      )

  @property
  def layout(self) -> pattern_lib.Layout:
    """Which layers run in the loop."""
    offers = any(hasattr(mixer, "offer") for mixer in self._kinds())
    return pattern_lib.layout(pattern_lib.tile(self.pattern, self.depth), offers=offers)

  @property
  def STATE(self) -> str:
    """The most demanding of its mixers'."""
    return max((mixer.STATE for mixer in self._kinds()), key=mixer_lib.STATES.index)

  @property
  def SLOW(self) -> tuple[str, ...]:
    """Those of all its mixers."""
    return tuple(sorted({name for mixer in self._kinds() for name in mixer.SLOW}))

  @property
  def SIDE(self) -> tuple[str, ...]:
    """Those of all its mixers; each gets the names it takes."""
    return tuple(sorted({name for mixer in self._kinds() for name in mixer.SIDE}))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> tuple:
    """One state a layer, before any token, not learned; see `start`."""
    return tuple(self._block(layer).init_state(batch, max_len) for layer in range(self.depth))

  @nn.nowrap
  def apart(self, variables: blocks.Variables) -> dict[str, Any]:
    """The stack's variables with nothing stacked: each layer's under the name that it has outside of a loop.

    The stack takes either. A loop over `step` wants these, made once before it: it would copy slices at every turn.
    """
    found: dict[str, Any] = {}
    for collection, parts in variables.items():
      groups, rest = parts.get("groups", {}), {name: part for name, part in parts.items() if name != "groups"}
      own = dict(rest.get("layers", {}))
      for layer in self.layout.scanned:
        _, name = self._place(layer)
        if name in groups:
          own[self._own_name(layer)] = blocks.at(groups[name], self.layout.group_of(layer))
      found[collection] = {**rest, "layers": own}
    return found

  def setup(self):
    if self.is_initializing() and not self.has_variable("params", self._place(0)[0]):
      self._keep(self._fresh(self.make_rng("params")))
    if self.learn_state:
      self.initial_state = self.param("initial_state", lambda _: self._zero_start())
    # what is sown during a call must not be mistaken for what the blocks keep between calls
    self.kept = tuple(self.variables)

  def start(self, batch: int, max_len: int) -> tuple:
    """`init_state`, with what is learned in its place."""
    state = self.init_state(batch, max_len)
    if not self.learn_state:
      return state
    leaves, tree = jax.tree.flatten_with_path(state)
    return tree.unflatten(_learned(self.initial_state, path, leaf) for path, leaf in leaves)

  def __call__(
    self,
    x: Float[Array, "b t d"],
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> Float[Array, "b t d"]:
    """All outputs, from `start`; 0 past `lengths`."""
    method, state = "__call__", (None,) * self.depth
    if self.learn_state:
      method, state = "prefill", self.start(*x.shape[:2])
    y, _ = self._run(method, blank_past(x, lengths), state, side, training=True, reset=reset, lengths=lengths)
    return blank_past(y, lengths)

  def prefill(
    self,
    x: Float[Array, "b t d"],
    state: tuple,
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> tuple[Float[Array, "b t d"], tuple]:
    """All outputs, going on from `state`, and the state after each row's last token."""
    y, state = self._run("prefill", blank_past(x, lengths), state, side, reset=reset, lengths=lengths)
    return blank_past(y, lengths), state

  def step(
    self, x: Float[Array, "b d"], state: tuple, *, side: Mapping[str, Array] | None = None
  ) -> tuple[Float[Array, "b d"], tuple]:
    """One token."""
    return self._run("step", x, state, side)

  def _run(
    self, method: str, x: Array, state: tuple, side: Mapping[str, Array] | None, *, training: bool = False, **masks: Any
  ) -> tuple[Array, tuple]:
    """Calls `method` of every block in turn, and keeps what the blocks changed besides their state."""
    self._check_call(state, side, masks)
    call = self._call(method, masks, training=training)
    loop = self.layout.scanned if method != "step" and self.has_variable("params", "groups") else range(0)
    side, states = dict(side or {}), list(state)
    changed: dict[str, dict[str, Any]] = {"groups": {}, "layers": {}}
    for layer in range(self.depth):
      if layer not in loop:
        block, variables, name = self._block(layer), self._variables(layer), self._own_name(layer)
        new = blocks.offered(block, call, variables, x, states[layer]) if blocks.offers(block) else {}
        x, states[layer], changed["layers"][name] = blocks.run(block, call, variables, x, states[layer], layer, side)
        side = {**new, **side}
      elif layer == loop.start:
        inside = slice(loop.start, loop.stop)
        x, states[inside], changed["groups"] = self._loop(call, x, states[inside], side)
    if call.mutable:
      self._keep(changed)
    return x, tuple(states)

  def _loop(
    self, call: blocks.Call, x: Array, states: Sequence[Any], side: Mapping[str, Array]
  ) -> tuple[Array, list, dict[str, Any]]:
    """The layers whose variables are stacked."""
    period = self.layout.scanned[: self.layout.period]
    names = [self._place(layer)[1] for layer in period]
    variables = [self._stored("groups", name) for name in names]
    group = [self._block(layer) for layer in period]
    x, states, changed = blocks.run_loop(group, call, variables, x, states, side, unroll=self.unroll)
    return x, states, dict(zip(names, changed))

  def _call(self, method: str, masks: Mapping[str, Any], *, training: bool) -> blocks.Call:
    assert self.scope is not None, "a stack runs inside init or apply"
    keys = {name: self.make_rng(name) for name in self.scope.rngs if name != "params"}
    fixed = self.is_initializing() or method == "step"
    frozen = ("params",) if training else ("params", *FROZEN_IN_EVALUATION)
    mutable = [] if fixed else scope.subtract_filters(self.scope.mutable, frozen) or []
    return blocks.Call(method, masks, keys, mutable, self.remat)

  def _check_call(self, state: tuple, side: Mapping[str, Array] | None, masks: Mapping[str, Any]) -> None:
    if len(state) != self.depth:
      raise Mistake(f"state has {len(state)} layers, but the stack has depth={self.depth}; make it by init_state")
    unknown = sorted(set(side or ()) - set(self.SIDE))
    if unknown:
      raise Mistake(f"side has {unknown}, but the mixers of {self.pattern!r} take {list(self.SIDE)}")
    if self.learn_state and masks.get("reset") is not None:
      raise Mistake(
        "learn_state=True and reset exclude each other: a reset clears the state to zero, not to what was learned; "
        "set learn_state=False, or feed one document a row without reset"
      )

  def _stored(self, part: str, name: str) -> blocks.Variables:
    """What is kept under a name, by collection."""
    kept: dict[str, Any] = {collection: self.get_variable(collection, part, {}) for collection in self.kept}
    return {collection: meta.unbox(tree[name]) for collection, tree in kept.items() if name in tree}

  def _variables(self, layer: int) -> blocks.Variables:
    """One layer's, wherever they are."""
    part, name = self._place(layer)
    own, stacked = self._stored("layers", self._own_name(layer)), self._stored(part, name)
    if not own and not stacked:
      raise errors.ScopeParamNotFoundError(f"{part}/{name}", "/".join(self.path))
    return own or blocks.at(stacked, self.layout.group_of(layer))

  def _keep(self, changed: Mapping[str, Mapping[str, blocks.Variables]]) -> None:
    """Stores variables given by part, name and collection."""
    by_collection: dict[str, dict[str, dict[str, Any]]] = {}
    for part, names in changed.items():
      for name, variables in names.items():
        for collection, value in variables.items():
          by_collection.setdefault(collection, {}).setdefault(part, {})[name] = value
    for collection, parts in by_collection.items():
      for part, tree in parts.items():
        self.put_variable(collection, part, tree)

  @nn.nowrap
  def _fresh(self, key: Array) -> dict[str, dict[str, blocks.Variables]]:
    """Fresh variables by part, name and collection; each layer's own key comes from its number.

    Layers of one letter are made together, unless a layer before them has something to offer, which decides what they
    take.
    """
    keys = jax.vmap(lambda layer: jax.random.fold_in(key, layer))(jnp.arange(self.depth))
    fresh: dict[str, dict[str, Any]] = {"groups": {}, "layers": {}}
    side: dict[str, Array] = {}
    layout = self.layout
    alone = 0
    if any(blocks.offers(self._block(layer)) for layer in range(self.depth)):
      alone = layout.first if layout.groups else self.depth
    for together in [*([layer] for layer in range(alone)), range(alone, self.depth)]:
      for letter in sorted({layout.letters[layer] for layer in together}):
        same = [layer for layer in together if layout.letters[layer] == letter]
        stacked = blocks.init([self._block(layer) for layer in same], keys[jnp.array(same)], side)
        self._deal(stacked, same, fresh)
      if isinstance(together, list) and blocks.offers(self._block(together[0])):
        side = {**blocks.offer_shapes(self._block(together[0]), meta.unbox(blocks.at(stacked, 0))), **side}
    return fresh

  @nn.nowrap
  def _deal(self, stacked: blocks.Variables, layers: Sequence[int], fresh: dict[str, dict[str, Any]]) -> None:
    """Puts the variables of layers of one letter into their places."""
    places = [self._place(layer) for layer in layers]
    for place in dict.fromkeys(places):
      part, name = place
      own = [index for index, other in enumerate(places) if other == place]
      step = own[1] - own[0] if len(own) > 1 else 1
      fresh[part][name] = (
        blocks.some(stacked, slice(own[0], own[-1] + 1, step)) if part == "groups" else blocks.at(stacked, own[0])
      )

  @nn.nowrap
  def _zero_start(self) -> dict[str, Array]:
    """Zeros for every float of every fixed state, real and imaginary parts apart, without the batch axis."""
    state = jax.eval_shape(lambda: self.init_state(1, 1))
    zeros = {}
    for path, leaf in jax.tree.leaves_with_path(state):
      if self._block(path[0].idx).bare(parent=None).STATE == "fixed" and jnp.issubdtype(leaf.dtype, jnp.inexact):
        zeros.update({name: jnp.zeros(leaf.shape[1:]) for name in _parts(path, leaf)})
    return zeros

  @nn.nowrap
  def _place(self, layer: int) -> tuple[str, str]:
    """Where a layer's variables are kept, and under which name: in "layers", or stacked in "groups"."""
    layout = self.layout
    if layer not in layout.scanned:
      return "layers", self._own_name(layer)
    # that of the first layer of its kind, counted from the start of the group
    first = layout.first + (layer - layout.first) % layout.period
    return "groups", self._own_name(first, counted_from=layout.first)

  @nn.nowrap
  def _own_name(self, layer: int, *, counted_from: int = 0) -> str:
    letter = pattern_lib.tile(self.pattern, self.depth)[layer]
    return f"{layer - counted_from}_{mixer_lib.find(self.mixers[letter]['name']).__module__.rpartition('.')[2]}"

  @nn.nowrap
  def _block(self, layer: int) -> Block:
    letter = pattern_lib.tile(self.pattern, self.depth)[layer]
    return Block(
      width=self.width,
      spec=self.mixers[letter],
      norm_name=self.norm,
      norm_position=self.norm_position,
      dropout=self.dropout,
      layer=layer,
      depth=self.depth,
      parent=None,
    )

  @nn.nowrap
  def _kinds(self) -> list[nn.Module]:
    """One mixer for each letter in use."""
    letters = pattern_lib.tile(self.pattern, self.depth)
    return [self._block(letters.index(letter)).bare(parent=None) for letter in sorted(set(letters))]


def _parts(path: tuple, leaf: Any) -> list[str]:
  """The names under which a leaf of the state is learned: '3_h', or '3_h_re' and '3_h_im' in layer 3."""
  name = jax.tree_util.keystr(path, simple=True, separator="_")
  return [f"{name}_re", f"{name}_im"] if jnp.issubdtype(leaf.dtype, jnp.complexfloating) else [name]


def _learned(start: Mapping[str, Array], path: tuple, leaf: Array) -> Array:
  """A leaf of the first state, moved to where learning has put it."""
  names = _parts(path, leaf)
  if names[0] not in start:
    return leaf
  values = [start[name] for name in names]
  return leaf + (values[0] if len(values) == 1 else jax.lax.complex(*values)).astype(leaf.dtype)
