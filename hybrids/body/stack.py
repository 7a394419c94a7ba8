"""A model's layers: branches in the order of a pattern. A stack is itself a mixer.

Parameters of Stack(width=64, depth=7, pattern="m-", …) with m=mamba and "-"=mlp; those of one letter are stacked, in
order:

  m/norm/scale           (4, 64)        layers 0, 2, 4, 6
  m/mixer/in_proj/kernel    (4, 64, 256)
  -/mixer/in_proj/kernel    (3, 64, 256)   layers 1, 3, 5
  final_norm/scale          (64,)
"""

import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import errors
from flax.core import FrozenDict, meta, scope
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float

from hybrids import branch as branch_lib
from hybrids import layout as layout_lib
from hybrids import mixer as mixer_lib
from hybrids import pattern as pattern_lib
from hybrids import pure
from hybrids.branch import Branch
from layers.mixer import Mixer, Where
from layers.norms import make_norm
from mistake import Mistake

# the running averages of batch norm, which only training changes
FROZEN_IN_EVALUATION = ("batch_stats",)
# the input per token by which a model offers its embedding
EMBEDDING = "embedding"


class Stack(Mixer):
  """x passed through `depth` branches, one for each letter of the tiled pattern, and a last norm.

  Branches are pure functions of parameters that the stack owns, so that repeated parts of the pattern run in
  `lax.scan`, also within one another, whatever else they keep: batch statistics and sown values are collected by layer,
  and every layer has random keys of its own. Compile time grows with the layers that the program writes out, see
  `pattern.program`. `step` is unrolled. The state is a tuple over layers.

  Attributes:
    depth: number of letters, that is of residual branches.
    letters: for each letter its mixer, by `name` and arguments, or the fields of its `Branch`.
    branch: fields of `Branch` that hold for every letter which does not set them.
    shared: letters whose variables exist once, for all their layers (Zamba).
    lora: rank of the low-rank changes that each layer of a shared letter makes to its matrices (Zamba2); 0 for none.
    lora_only: a regular expression, found in the paths of the matrices that have such changes; in all, if empty.
    lora_joint: a regular expression, found in the paths of those matrices of one module whose changes have their first
      factor in common, as they read the same vectors; none, if empty.
    last_norm: whether the last layer's output is normalised, unless norms stand after the sums already ("post").
    remat: what the backward pass recomputes: "none"; "full", all of each branch, of which its input is kept; "dots",
      all but matrix products; "scans", all but what scans and attention return and keep; "offload", as "full", and the
      inputs wait in the host's memory.
    unroll: how many rounds one iteration of a loop holds; 0 for one, but for all of a short loop (of at most
      `pure.SHORT` layers): nothing is then stacked for the backward pass, which is smaller and faster. It compiles in
      the time of the loop for two layers, and in two to three times that for eight.
  Raises:
    ValueError: when made, if a field does not fit: a letter has no mixer, a mixer no such argument, …
  """

  width: int
  depth: int
  pattern: str
  letters: Mapping[str, Mapping[str, Any]]
  branch: Mapping[str, Any] = FrozenDict()
  shared: str = ""
  lora: int = 0
  lora_only: str = ""
  lora_joint: str = ""
  last_norm: bool = True
  remat: str = "none"
  unroll: int = 0

  def __post_init__(self):
    self.letters, self.branch = mixer_lib.frozen(self.letters), mixer_lib.frozen(self.branch)
    super().__post_init__()
    if self.remat not in pure.REMAT:
      raise Mistake(f"no remat {self.remat!r}; choose from {list(pure.REMAT)}")
    if self.unroll < 0:
      raise Mistake(f"unroll={self.unroll}; one iteration holds at least 1 round, and 0 chooses by the loop's length")
    if self.lora < 0 or (self.lora and not self.shared):
      raise Mistake(f"lora={self.lora}, shared={self.shared!r}; it is the rank at which shared letters differ by layer")
    for field in ("lora_only", "lora_joint"):
      try:
        re.compile(getattr(self, field))
      except re.error as error:
        raise Mistake(f"{field}={getattr(self, field)!r} is no regular expression: {error}") from None
    pattern_lib.check(self.pattern, self.letters)
    unknown = sorted(set(self.shared) - set(self.pattern))
    if unknown:
      raise Mistake(f"shared={self.shared!r} names {unknown}, but the pattern is {self.pattern!r}")
    self._mixers()
    self._check_feeding()

  @property
  def layout(self) -> layout_lib.Layout:
    """Returns the places of the layers' variables, and the program of loops that runs the layers."""
    letters = pattern_lib.tile(self.pattern, self.depth)
    mixers = self._mixers()
    offering = frozenset(letter for letter, mixer in mixers.items() if mixer_lib.offers(mixer))
    reading = frozenset(
      letter for letter, mixer in mixers.items() if set(mixer.SIDE) - {EMBEDDING} - set(_carries(mixer))
    )
    return layout_lib.make(letters, offering=offering, reading=reading, shared=frozenset(self.shared))

  @property
  def STATE(self) -> str:
    """Returns the most demanding STATE among its mixers."""
    return max((mixer.STATE for mixer in self._mixers().values()), key=mixer_lib.STATES.index)

  @property
  def SIDE(self) -> tuple[str, ...]:
    """Returns names of inputs per token that any mixer reads and no layer carries; each mixer gets those it names."""
    return tuple(sorted({name for mixer in self._mixers().values() for name in set(mixer.SIDE) - set(_carries(mixer))}))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> tuple:
    """Returns the state of each layer before any token."""
    return tuple(self._branch(layer).init_state(batch, max_len) for layer in range(self.depth))

  @nn.nowrap
  def apart(self, variables: pure.Variables) -> dict[str, Any]:
    """Returns the stack's variables with nothing stacked: each layer's under its letter and number.

    The stack takes either. A loop over `step` wants these, made once before it: it would copy slices at every turn.
    """
    return layout_lib.apart(self.layout, variables)

  @nn.nowrap
  def together(self, variables: pure.Variables) -> dict[str, Any]:
    """Returns the inverse of `apart`, for training what was imported layer by layer."""
    return layout_lib.together(self.layout, variables)

  def setup(self):
    letters = {layer.letter for layer in self.layout.layers}
    if self.is_initializing() and not any(self.has_variable("params", letter) for letter in letters):
      self._keep(self._fresh(self.make_rng("params")))
    # variables sown during a call must not be mistaken for those that branches keep between calls
    self.kept = tuple(collection for collection in self.variables if collection not in pure.SOWN)
    last = self._branch(self.depth - 1)
    if self.last_norm and last.norm_position != "post":
      self.final_norm = make_norm(**last.norm)

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    return self._run("__call__", x, (None,) * self.depth, where.side, where.masks)[0]

  def mix(self, x: Float[Array, "b t d"], state: tuple, where: Where) -> tuple[Float[Array, "b t d"], tuple]:
    return self._run("prefill", x, state, where.side, where.masks)

  def mix_token(
    self, x: Float[Array, "b d"], state: tuple, side: Mapping[str, Array]
  ) -> tuple[Float[Array, "b d"], tuple]:
    return self._run("step", x, state, side, {})

  def _run(
    self, method: str, x: Array, state: tuple, side: Mapping[str, Array], masks: Mapping[str, Any]
  ) -> tuple[Array, tuple]:
    """Calls `method` of every branch in turn, and keeps what the branches changed besides their state."""
    if len(state) != self.depth:
      raise Mistake(f"state has {len(state)} layers, but the stack has depth={self.depth}; make it by init_state")
    call = self._call(method, masks, side)
    kept = {letter: self._kept(letter) for letter in {layer.letter for layer in self.layout.layers}}
    apart = any(layer.number in kept[layer.letter].own and not layer.alone for layer in self.layout.layers)
    run = self._one_by_one if apart or method == "step" else self._in_loops
    x, state, changed = run(call, kept, x, state)
    if call.mutable:
      self._keep(changed)
    if self.last_norm and self._branch(self.depth - 1).norm_position != "post":
      parallel = method == "__call__"
      normalised = branch_lib.in_parallel(masks.get("lengths")) if parallel else branch_lib.token_by_token
      x = normalised(self.final_norm, x)
    return x, state

  def _one_by_one(
    self, call: pure.Call, kept: Mapping[str, layout_lib.Kept], x: Array, state: tuple
  ) -> tuple[Array, tuple, dict[str, Any]]:
    """Runs the layers one after the other, without loops."""
    states, stream = list(state), self._stream(x)
    changed: dict[str, Any] = {}
    for index, layer in enumerate(self.layout.layers):
      kind = pure.Kind(self._branch(index), kept[layer.letter].shared, layer.offers)
      piece = pure.Piece(jnp.int32(index), *kept[layer.letter].layer(self.layout, layer), state[index])
      new = pure.offered(kind, call, stream.x, piece)
      stream, states[index], made = pure.run(kind, call, stream, piece)
      call = call._replace(side={**new, **call.side})
      for collection, tree in made.items():
        changed.setdefault(layer.letter, {}).setdefault(collection, {})[str(layer.number)] = tree
    return stream.x, tuple(states), changed

  def _in_loops(
    self, call: pure.Call, kept: Mapping[str, layout_lib.Kept], x: Array, state: tuple
  ) -> tuple[Array, tuple, dict[str, Any]]:
    """Runs the layers by the program of the layout, with loops over equal layers."""
    kinds, pieces = {}, {}
    for name, layers in self.layout.kinds().items():
      first = self.layout.layers[layers[0]]
      kinds[name] = pure.Kind(self._branch(layers[0]), kept[first.letter].shared, first.offers)
      variables = kept[first.letter].layers(self.layout, first, len(layers))
      pieces[name] = pure.Piece(jnp.array(layers), *variables, pure.stack([state[layer] for layer in layers]))
    stream, results = pure.run_program(self.layout.program, kinds, call, self._stream(x), pieces)
    states: list[Any] = list(state)
    changed: dict[str, Any] = {}
    for name, layers in self.layout.kinds().items():
      new, made = results[name]
      for place, layer in enumerate(layers):
        states[layer] = pure.at(new, place)
      layout_lib.collect(changed, self.layout.layers[layers[0]], made)
    return stream.x, tuple(states), changed

  @nn.nowrap
  def _stream(self, x: Array) -> pure.Stream:
    """Returns the stream before the first layer."""
    feeds = any(self._branch(self.layout.letters.index(letter)).feeds for letter in set(self.layout.letters))
    carries = {name: width for mixer in self._mixers().values() for name, width in _carries(mixer).items()}
    carried = {name: jnp.zeros((*x.shape[:-1], width), x.dtype) for name, width in carries.items()}
    return pure.Stream(x, jnp.zeros_like(x) if feeds else None, carried)

  def _call(self, method: str, masks: Mapping[str, Any], side: Mapping[str, Array]) -> pure.Call:
    assert self.scope is not None, "a stack runs inside init or apply"
    keys = {name: self.make_rng(name) for name in self.scope.rngs if name != "params"}
    fixed = self.is_initializing() or method == "step"
    frozen = ("params",) if method == "__call__" else ("params", *FROZEN_IN_EVALUATION)
    mutable = [] if fixed else scope.subtract_filters(self.scope.mutable, frozen) or []
    return pure.Call(method, masks, keys, mutable, self.remat, side, self.unroll)

  def _kept(self, letter: str) -> layout_lib.Kept:
    """Returns the variables of a letter."""
    trees: dict[str, Any] = {collection: self.get_variable(collection, letter, {}) for collection in self.kept}
    trees = {collection: meta.unbox(tree) for collection, tree in trees.items() if tree}
    if "params" not in trees and self._branch(self.layout.letters.index(letter)).norm_position != "none":
      raise errors.ScopeParamNotFoundError(letter, "/".join(self.path))
    return layout_lib.Kept.of(trees, shared=letter in self.shared)

  def _keep(self, changed: Mapping[str, Mapping[str, Any]]) -> None:
    """Stores variables given by letter and collection."""
    for letter, collections in changed.items():
      for collection, tree in collections.items():
        if letter in self.shared and collection not in ("params", *pure.SOWN) and not self.is_initializing():
          raise Mistake(f"shared={self.shared!r}: letter {letter!r} changes {collection!r}, which needs own layers")
        self.put_variable(collection, letter, tree)

  @nn.nowrap
  def _fresh(self, key: Array) -> dict[str, dict[str, Any]]:
    """Initialises variables by letter and collection; each layer's own key comes from its number in the stack.

    Layers of one letter are made together, unless a layer before some of them offers what they read.
    """
    layers = self.layout.layers
    keys = jax.vmap(lambda layer: jax.random.fold_in(key, layer))(jnp.arange(self.depth))
    fresh: dict[str, dict[str, Any]] = {}
    side = {EMBEDDING: jnp.zeros((1, 1, self.width))} if EMBEDDING in self.SIDE else {}
    for index, layer in enumerate(layers):
      alike = [other for other, one in enumerate(layers) if one.letter == layer.letter and one.alone == layer.alone]
      if layer.alone or layer.letter in self.shared:
        alike = [index]
      elif index != alike[0]:
        continue
      if layer.letter in self.shared and layer.number:
        continue
      variables = pure.init([self._branch(other) for other in alike], keys[jnp.array(alike)], side)
      one = pure.at(variables, 0)
      if layer.letter in self.shared:
        uses = len(self.layout.of_letter(layer.letter))
        adapters = self._adapters(one["params"], keys[index], uses) if self.lora else {}
        variables = {**one, "params": {**one["params"], **adapters}}
      layout_lib.collect(fresh, layer, variables)
      if layer.offers:
        side = {**pure.offer_shapes(self._branch(index), meta.unbox(one)), **side}
    self._check_adapters({letter: fresh[letter]["params"].get(layout_lib.LORA, {}) for letter in self.shared})
    return fresh

  @nn.nowrap
  def _check_adapters(self, made: Mapping[str, Any]) -> None:
    """Checks that the expressions for matrices with low-rank changes are found in the paths of some."""
    paths = flatten_dict(made)
    # a factor of one matrix alone stands below its `kernel`
    common = any(path[-1] == "A" and path[-2] != "kernel" for path in paths)
    for field, found in (("lora_only", bool(paths)), ("lora_joint", common or not self.lora_joint)):
      if self.lora and not found:
        value = getattr(self, field)
        raise Mistake(f"{field}={value!r} is in the path of no such matrix of a shared letter; give part of one")

  @nn.nowrap
  def _adapters(self, params: Any, key: Array, uses: int) -> dict[str, Any]:
    return pure.init_adapters(params, self.lora, self.lora_only, self.lora_joint, key, uses)

  @nn.nowrap
  def _branch(self, layer: int) -> Branch:
    """Returns the branch of a layer, without variables."""
    letter = pattern_lib.tile(self.pattern, self.depth)[layer]
    fields = {"width": self.width, "layer": layer, "depth": self.depth, **self.branch}
    fields |= branch_lib.fields(self.letters[letter])
    mixer_lib.check_fields(Branch, fields, f"letter {letter!r}")
    return Branch(**fields, parent=None)

  @nn.nowrap
  def _check_feeding(self) -> None:
    """Checks that every layer which feeds the next one is before one that reads it, and the other way round."""
    letters = pattern_lib.tile(self.pattern, self.depth)
    branches = {letter: self._branch(letters.index(letter)) for letter in sorted(set(letters))}
    before = [None, *letters]
    for index, (first, second) in enumerate(zip(before, [*letters, None])):
      feeds, reads = first is not None and branches[first].feeds, second is not None and branches[second].reads != "x"
      if feeds != reads:
        fed = f"layer {index - 1} {first!r} feeds the next one, and {second!r} does not read it"
        unfed = f"layer {index} {second!r} reads what is fed to it, and {first!r} feeds nothing"
        raise Mistake(f"pattern {self.pattern!r}, depth={self.depth}: {fed if feeds else unfed}")

  @nn.nowrap
  def _mixers(self) -> dict[str, nn.Module]:
    """Returns one mixer for each letter in use, without variables."""
    letters = pattern_lib.tile(self.pattern, self.depth)
    return {letter: self._branch(letters.index(letter)).bare(parent=None) for letter in sorted(set(letters))}


def _carries(mixer: nn.Module) -> Mapping[str, int]:
  return getattr(mixer, "CARRIES", {})
