"""Blocks as pure functions of their variables: made layer by layer, run one by one or in a loop over stacked layers.

The variables of a block are a dict of collections, `params` among them, as `block.init` returns it. Stacked variables
have one more axis in front, over layers, with the logical name "layers".
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import meta
from jaxtyping import Array, Float

from hybrids import mixer as mixer_lib
from hybrids.block import Block
from mistake import Mistake

REMAT: dict[str, Callable | None] = {
  "none": None,
  "full": jax.checkpoint_policies.nothing_saveable,
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
LAYERS = {nn.PARTITION_NAME: "layers"}
Variables = Mapping[str, Any]


class Call(NamedTuple):
  """What is the same for every block in one call of a stack.

  masks: `reset` and `lengths`, or nothing for `step`. keys: one a random stream, folded with the layer's number.
  mutable: the collections that blocks may change.
  """

  method: str
  masks: Mapping[str, Any]
  keys: Mapping[str, Any]
  mutable: Any
  remat: str


def init(blocks: Sequence[Block], keys: Array, side: Mapping[str, Array]) -> Variables:
  """Fresh variables of layers with one kind of mixer, stacked: what `block.init` makes for each block and key.

  Raises:
    ValueError: the parameters of the layers differ in shape.
  """
  taken = _taken(blocks[0], side)
  mixers = [block.bare(parent=None) for block in blocks]
  fresh = lambda block: lambda key: block.init(key, jnp.zeros((1, 1, block.width)), side=taken)
  if all(mixer == mixers[0] for mixer in mixers):
    # a loop, so that the program does not grow with the depth
    stacked = jax.jit(lambda keys: jax.lax.map(fresh(blocks[0]), keys))(keys)
  else:
    each = [jax.jit(fresh(block))(key) for block, key in zip(blocks, keys)]
    shapes = [jax.tree.map(jnp.shape, variables) for variables in each]
    for block, shape in zip(blocks, shapes):
      if shape != shapes[0]:
        raise Mistake(
          f"mixer {block.spec['name']!r} has other parameters in layer {block.layer} than in layer {blocks[0].layer}; "
          "layers of one letter must be alike, so give the odd one a letter of its own"
        )
    stacked = stack(each)
  return meta.add_axis(stacked, 0, LAYERS)


def some(stacked: Any, layers: slice) -> Any:
  """Some of the layers of a stacked tree."""
  return jax.tree.map(lambda leaf: leaf[layers], stacked)


def at(stacked: Any, index: int) -> Any:
  """One layer of a stacked tree."""
  layer = jax.tree.map(lambda leaf: jax.lax.index_in_dim(leaf, index, keepdims=False), stacked)
  return meta.remove_axis(layer, 0, LAYERS)


def stack(trees: Sequence[Any]) -> Any:
  """Trees of one structure, with a new first axis over them."""
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def run(
  block: Block,
  call: Call,
  variables: Variables,
  x: Float[Array, "b *t d"],
  state: Any,
  layer: Any,
  side: Mapping[str, Array],
  *,
  in_loop: bool = False,
) -> tuple[Float[Array, "b *t d"], Any, Variables]:
  """Calls one block: its output, its new state, and what it changed in its other collections.

  Args:
    state: None where the method takes none.
    layer: the layer's number; a traced one in a loop.
  """

  def apply(variables, x, state, keys, masks, taken):
    arguments = (x,) if call.method == "__call__" else (x, state)
    out, changed = block.apply(
      variables, *arguments, **masks, side=taken, method=call.method, rngs=keys, mutable=call.mutable
    )
    return (out, None, changed) if call.method == "__call__" else (*out, changed)

  if REMAT[call.remat] is not None and call.method != "step":
    # inside a loop nothing merges the recomputation with the first computation, so that no barrier is needed
    apply = jax.checkpoint(apply, policy=REMAT[call.remat], prevent_cse=not in_loop)
  keys = {name: jax.random.fold_in(key, layer) for name, key in call.keys.items()}
  return apply(variables, x, state, keys, dict(call.masks), _taken(block, side))


def run_loop(
  blocks: Sequence[Block],
  call: Call,
  variables: Sequence[Variables],
  x: Float[Array, "b t d"],
  states: Sequence[Any],
  side: Mapping[str, Array],
  *,
  unroll: int,
) -> tuple[Float[Array, "b t d"], list[Any], list[Variables]]:
  """Calls the blocks of one group again and again, with each group's part of the stacked variables.

  Args:
    states: one a layer, in order; they are stacked for the loop and taken apart after it.

  Returns:
    The output, the new state of each layer, and what each block changed, stacked.
  """
  period, groups = len(blocks), len(states) // len(blocks)
  unroll = min(unroll, groups)

  def group(x, inputs):
    index, variables, states = inputs
    new, changed = [], []
    for place, block in enumerate(blocks):
      layer = block.layer + period * index
      x, state, update = run(block, call, variables[place], x, states[place], layer, side, in_loop=unroll == 1)
      new.append(state)
      changed.append(update)
    return x, (new, changed)

  stacked = [stack(states[place::period]) for place in range(period)]
  x, (new, changed) = jax.lax.scan(group, x, (jnp.arange(groups), list(variables), stacked), unroll=unroll)
  return x, [at(new[layer % period], layer // period) for layer in range(len(states))], changed


def offers(block: Block) -> bool:
  """Whether the block's mixer has something for the layers after it."""
  return hasattr(mixer_lib.find(block.spec["name"]), "offer")


def offered(block: Block, call: Call, variables: Variables, x: Float[Array, "b *t d"], state: Any) -> dict[str, Array]:
  """The arrays per token which a block's mixer offers to the layers after it."""
  if call.method == "step":
    one: Any = block.apply(variables, x[:, None], state, method="offer")
    return {name: value[:, 0] for name, value in one.items()}
  state = block.init_state(*x.shape[:2]) if state is None else state
  offers: Any = block.apply(variables, x, state, **call.masks, method="offer")
  return dict(offers)


def offer_shapes(block: Block, variables: Variables) -> dict[str, Array]:
  """Zeros in the place of what `offered` returns for one token, for initialising the layers after the block."""
  call = Call("__call__", {}, {}, [], "none")
  shapes = jax.eval_shape(lambda: offered(block, call, variables, jnp.zeros((1, 1, block.width)), None))
  return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _taken(block: Block, side: Mapping[str, Array]) -> dict[str, Array] | None:
  """What the block's mixer takes of the arrays per token."""
  return {name: side[name] for name in block.bare(parent=None).SIDE if name in side} or None
