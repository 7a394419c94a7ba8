"""Branches as pure functions of their variables: made layer by layer, run one by one or as a program of loops.

The variables of a branch are a dict of collections, `params` among them, as `branch.init` returns it. Stacked variables
have one more axis in front, over layers, with the logical name "layers".
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import meta, scope
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from hybrids import pattern
from hybrids.branch import FED, Branch
from kernels import kept_states
from layers.param import Adapted
from mistake import Mistake

# the name of what enters a branch
BRANCH = "branch"
REMAT: dict[str, Callable | None] = {
  "none": None,
  "full": jax.checkpoint_policies.nothing_saveable,
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  "scans": jax.checkpoint_policies.save_only_these_names(kept_states.NAME),
  "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
    names_which_can_be_saved=[],
    names_which_can_be_offloaded=[BRANCH],
    offload_src="device",
    offload_dst="pinned_host",
  ),
}
LAYERS = {nn.PARTITION_NAME: "layers"}
# collections that a call adds to, as opposed to the variables of a layer
SOWN = ("losses", "intermediates", "carried")
# layers of a loop that is written out unless `unroll` says otherwise
SHORT = 8
# the one among them by which a layer hands arrays per token to the next layer that wants them
CARRIED = "carried"
Variables = Mapping[str, Any]


class Call(NamedTuple):
  """The arguments that all branches share in one call of a stack.

  masks: `reset` and `lengths`, or nothing for `step`. keys: one a random stream, folded with the layer's number.
  mutable: the collections that branches may change. side: the inputs per token. unroll: iterations of a loop that its
  body holds, 0 for all of a loop of few layers and one of any other.
  """

  method: str
  masks: Mapping[str, Any]
  keys: Mapping[str, Any]
  mutable: Any
  remat: str
  side: Mapping[str, Array]
  unroll: int = 0


class Piece(NamedTuple):
  """The variables and states of some layers of one kind; every leaf has a leading axis over these layers.

  variables: None where they are shared. adapters: low-rank changes to shared variables, or None.
  """

  number: Array  # in the stack
  variables: Any
  adapters: Any
  state: Any


class Stream(NamedTuple):
  """The vectors that pass through the layers.

  x: the sum of their outputs. fed: the output of a layer that feeds the next one alone; None where no layer does.
  carried: what a layer hands to the next one with a mixer that CARRIES it, by name; 0 before the first.
  """

  x: Array
  fed: Array | None
  carried: dict[str, Array]


class Kind(NamedTuple):
  """Layers that one compiled body serves: their branch, and the variables that all of them share, if they do."""

  branch: Branch
  shared: Variables | None = None
  offers: bool = False  # what its one layer offers is new


def init(branches: Sequence[Branch], keys: Array, side: Mapping[str, Array]) -> Variables:
  """Initialises layers with one kind of mixer by `branch.init` with each branch and key, and stacks them.

  Raises:
    ValueError: the parameters of the layers differ in shape.
  """
  taken = _taken(branches[0], side)
  mixers = [branch.bare(parent=None) for branch in branches]

  def fresh(branch: Branch) -> Callable:
    x = jnp.zeros((1, 1, branch.width))
    return lambda key: branch.init(key, x, side=taken, mutable=nn.DenyList(SOWN))

  if all(mixer == mixers[0] for mixer in mixers):
    # a loop, so that the program does not grow with the depth
    stacked = jax.jit(lambda keys: jax.lax.map(fresh(branches[0]), keys))(keys)
  else:
    each = [jax.jit(fresh(branch))(key) for branch, key in zip(branches, keys)]
    shapes = [jax.tree.map(jnp.shape, variables) for variables in each]
    for branch, shape in zip(branches, shapes):
      if shape != shapes[0]:
        raise Mistake(
          f"mixer {branch.mixer['name']!r} has other parameters in layer {branch.layer} than in layer "
          f"{branches[0].layer}; layers of one letter must be alike, so give the odd one a letter of its own"
        )
    stacked = stack(each)
  return meta.add_axis(stacked, 0, LAYERS)


def at(stacked: Any, index: int) -> Any:
  """Returns one layer of a stacked tree."""
  layer = jax.tree.map(lambda leaf: jax.lax.index_in_dim(leaf, index, keepdims=False), stacked)
  return meta.remove_axis(layer, 0, LAYERS)


def stack(trees: Sequence[Any]) -> Any:
  """Stacks trees of one structure along a new first axis."""
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def run(
  kind: Kind, call: Call, stream: Stream, piece: Piece, *, in_loop: bool = False
) -> tuple[Stream, Any, Variables]:
  """Calls the branch of one layer, and returns the stream after it, its new state and its changed variables.

  Args:
    piece: that of one layer, without the axis over layers; its state is None where the method takes none.
  """
  branch = kind.branch
  mutable = scope.union_filters(call.mutable, CARRIED) if branch.CARRIES else call.mutable

  def apply(x, piece, keys, masks, taken, shared):
    x = checkpoint_name(x, BRANCH)
    variables = piece.variables if shared is None else adapted(shared, piece.adapters)
    arguments = (x,) if call.method == "__call__" else (x, piece.state)
    out, changed = branch.apply(
      variables, *arguments, **masks, side=taken, method=call.method, rngs=keys, mutable=mutable
    )
    changed = dict(changed)
    carried = {path[-1].key: leaf for path, leaf in jax.tree.leaves_with_path(changed.pop(CARRIED, {}))}
    out, state = (out, None) if call.method == "__call__" else out
    return out, state, changed, carried

  if REMAT[call.remat] is not None and call.method != "step":
    # inside a loop nothing merges the recomputation with the first computation, so that no barrier is needed
    apply = jax.checkpoint(apply, policy=REMAT[call.remat], prevent_cse=not in_loop)
  keys = {name: jax.random.fold_in(key, piece.number) for name, key in call.keys.items()}
  side = {**call.side, **stream.carried, **({} if stream.fed is None else {FED: stream.fed})}
  y, state, changed, carried = apply(stream.x, piece, keys, dict(call.masks), _taken(branch, side), kind.shared)
  stream = stream._replace(carried={**stream.carried, **carried})
  return stream._replace(fed=y) if branch.feeds else stream._replace(x=y), state, changed


def run_program(
  items: Sequence[Any],
  kinds: Mapping[Any, Kind],
  call: Call,
  stream: Stream,
  pieces: Mapping[Any, Piece],
  *,
  in_loop: bool = False,
) -> tuple[Stream, dict[Any, tuple[Any, Variables]]]:
  """Runs the layers of a program (see `pattern.program`), each kind with its piece, in order.

  Returns:
    The stream after them, and for each kind the new states and what the layers changed, with the axis over layers.
  """
  counts = {kind: [pattern.count([item], kind) for item in items] for kind in pieces}
  parts = {kind: iter(_split(piece, [count for count in counts[kind] if count])) for kind, piece in pieces.items()}
  results: dict[Any, list] = {kind: [] for kind in pieces}
  for index, item in enumerate(items):
    mine = {kind: next(parts[kind]) for kind in pieces if counts[kind][index]}
    if isinstance(item, pattern.Loop):
      inner = {kind: _fold(piece, item.times) for kind, piece in mine.items()}
      short = item.times * pattern.size(item.body) <= SHORT
      unroll = min(call.unroll or (item.times if short else 1), item.times)
      body = functools.partial(run_program, item.body, kinds, call, in_loop=unroll == 1)
      stream, made = jax.lax.scan(body, stream, inner, unroll=unroll)
      made = jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:]), made)
    else:
      one = jax.tree.map(lambda leaf: leaf[0], mine[item])
      new = offered(kinds[item], call, stream.x, one)
      stream, state, changed = run(kinds[item], call, stream, one, in_loop=in_loop)
      call = call._replace(side={**new, **call.side})
      made = {item: jax.tree.map(lambda leaf: leaf[None], (state, changed))}
    for kind, result in made.items():
      results[kind].append(result)
  join = lambda *leaves: leaves[0] if len(leaves) == 1 else jnp.concatenate(leaves)
  return stream, {kind: jax.tree.map(join, *made) for kind, made in results.items()}


def adapted(shared: Variables, adapters: Variables | None) -> Variables:
  """Returns shared variables as one layer uses them: `Adapted` for every matrix that has an adapter (Zamba2)."""
  if adapters is None:
    return shared

  def add(tree: Any, change: Any, joint: Array | None = None) -> Any:
    if "B" in change:
      return Adapted(tree, change.get("A", joint), change["B"])
    joint = change.get("A", joint)
    return {name: add(value, change[name], joint) if name in change else value for name, value in tree.items()}

  return {**shared, "params": add(shared["params"], adapters)}


def init_adapters(params: Any, rank: int, only: str, joint: str, key: Array, layers: int) -> dict[str, Any]:
  """Draws low-rank changes of shared parameters, stacked over layers: {"lora": …}, or nothing where there are none.

  Args:
    only, joint: regular expressions that are searched for in the paths of matrices, as `mixer/in_proj/kernel`: those
      that have changes, and those among them that share the factor A within a module. No path has an empty `joint`.
  """
  keys, patterns = jax.random.split(key, layers), (re.compile(only), re.compile(joint or "(?!)"))
  made = jax.vmap(lambda key: _adapters(params, rank, *patterns, key, ""))(keys)
  return {"lora": meta.add_axis(made, 0, LAYERS)} if made else {}


def _adapters(params: Any, rank: int, only: re.Pattern, joint: re.Pattern, key: Array, path: str) -> dict[str, Any]:
  """Returns factors A, random, and B, zero, for every matrix called `kernel` that is to have them.

  A factor A that several maps of a module have in common stands beside them.
  """
  made: dict[str, Any] = {}
  for index, (name, boxed) in enumerate(sorted(params.items())):
    own = jax.random.fold_in(key, index)
    if isinstance(boxed, Mapping):
      made[name] = _adapters(boxed, rank, only, joint, own, f"{path}{name}/")
    elif name == "kernel" and only.search(path + name) and jnp.ndim(meta.unbox(boxed)) == 2:
      (d, e), (left, right) = meta.unbox(boxed).shape, getattr(boxed, "names", (None, None))
      A = nn.LogicallyPartitioned(jax.random.normal(own, (d, rank)) * d**-0.5, names=(left, None))
      made[name] = {"A": A, "B": nn.LogicallyPartitioned(jnp.zeros((rank, e)), names=(None, right))}
  for name, value in made.items():
    if "kernel" in value and joint.search(f"{path}{name}/kernel"):
      made = made | {"A": value["kernel"].pop("A")}
  return {name: value for name, value in made.items() if value}


def offered(kind: Kind, call: Call, x: Float[Array, "b *t d"], piece: Piece) -> dict[str, Array]:
  """Returns the arrays per token which a layer offers to the layers after it, if it does."""
  if not kind.offers:
    return {}
  branch, state = kind.branch, piece.state
  variables = piece.variables if kind.shared is None else adapted(kind.shared, piece.adapters)
  if call.method == "step":
    one: Any = branch.apply(variables, x[:, None], state, method="offer")
    return {name: value[:, 0] for name, value in one.items()}
  state = branch.init_state(*x.shape[:2]) if state is None and branch.STATE != "none" else state
  offers: Any = branch.apply(variables, x, state, **call.masks, method="offer")
  return dict(offers)


def offer_shapes(branch: Branch, variables: Variables) -> dict[str, Array]:
  """Returns zeros in place of what `offered` returns for one token, for initialising the layers after the branch."""
  call = Call("__call__", {}, {}, [], "none", {})
  piece = Piece(jnp.int32(0), variables, None, None)
  shapes = jax.eval_shape(lambda: offered(Kind(branch, offers=True), call, jnp.zeros((1, 1, branch.width)), piece))
  return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _taken(branch: Branch, side: Mapping[str, Array]) -> dict[str, Array] | None:
  """Selects the inputs per token that the branch's mixer reads."""
  return {name: side[name] for name in branch.SIDE if name in side} or None


def _split(piece: Piece, counts: Sequence[int]) -> list[Piece]:
  """Cuts a piece along the axis over layers. The gradient of a split joins the parts, where one of slices adds them."""
  if len(counts) == 1:
    return [piece]
  leaves, tree = jax.tree.flatten(piece)
  return [tree.unflatten(parts) for parts in zip(*(jax.lax.split(leaf, counts) for leaf in leaves))]


def _fold(piece: Piece, times: int) -> Piece:
  """Reshapes a piece for a loop: one axis over its iterations, and one over the layers of each iteration."""
  return jax.tree.map(lambda leaf: leaf.reshape(times, len(leaf) // times, *leaf.shape[1:]), piece)
