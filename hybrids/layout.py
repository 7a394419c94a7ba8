"""Where a stack keeps the variables of its layers: by letter and number, stacked for loops or apart.

In every collection the layers of a letter are one tree whose leaves have an axis over them in front. A layer that is
kept under its own number, counted among those of its letter, is not in that axis; a letter whose variables are shared
has no such axis, but for its adapters.

  stacked     {"m": {"norm": {"scale": (12, 64)}, …}, "-": {…}}
  apart       {"m": {"0": {"norm": {"scale": (64,)}, …}, "1": …}, "-": {…}}
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import meta

from hybrids import pattern, pure

LORA = "lora"
Tree = Mapping[str, Any]


class Layer(NamedTuple):
  """A layer of a stack.

  number: among the layers of its letter. alone: kept under its number always, as it has other parameters than those
  that follow. single: runs outside of loops. offers: what it offers is new.
  """

  letter: str
  number: int
  alone: bool
  single: bool
  offers: bool


class Layout(NamedTuple):
  """The layers of a stack in order, and the program that runs them; it names kinds of layers, see `kind_of`."""

  layers: tuple[Layer, ...]
  program: tuple
  shared: frozenset[str]

  @property
  def letters(self) -> str:
    """Returns the letter of each layer."""
    return "".join(layer.letter for layer in self.layers)

  def kinds(self) -> dict[tuple[str, int], list[int]]:
    """Maps each kind to its layers, which run in one compiled body and have their variables stacked."""
    kinds: dict[tuple[str, int], list[int]] = {}
    for index, layer in enumerate(self.layers):
      kinds.setdefault(kind_of(layer), []).append(index)
    return kinds

  def of_letter(self, letter: str) -> list[Layer]:
    """Returns the layers of a letter."""
    return [layer for layer in self.layers if layer.letter == letter]

  def index(self, layer: Layer) -> int:
    """Returns the index of a layer on the axis over the stacked layers of its letter."""
    return layer.number - sum(other.alone for other in self.of_letter(layer.letter)[: layer.number])


def kind_of(layer: Layer) -> tuple[str, int]:
  """Returns the layer's letter, and its number if the layer runs outside of loops, else -1."""
  return layer.letter, layer.number if layer.single else -1


@functools.cache
def make(letters: str, *, offering: frozenset[str], reading: frozenset[str], shared: frozenset[str]) -> Layout:
  """Makes the layout of a stack.

  Args:
    offering: letters that offer arrays to the layers after them. The first of each runs outside of loops.
    reading: letters that read what is offered. A layer before the last first offer is alone.
  """
  first = {letters.index(letter) for letter in offering}
  layers = []
  for index, letter in enumerate(letters):
    alone = letter in reading and letter not in shared and any(index <= other for other in first)
    number = letters[:index].count(letter)
    layers.append(Layer(letter, number, alone, alone or index in first, index in first))
  program = pattern.program([kind_of(layer) for layer in layers])
  return Layout(tuple(layers), program, shared)


class Kept(NamedTuple):
  """The variables of a letter, by collection: stacked over its layers, shared by them, and of layers by themselves."""

  stacked: dict[str, Any]
  shared: dict[str, Any] | None
  own: dict[int, dict[str, Any]]

  @classmethod
  def of(cls, trees: Mapping[str, Tree], *, shared: bool) -> "Kept":
    """Splits the variables of a letter, in each collection, into stacked, shared and single layers."""
    stacked: dict[str, Any] = {}
    own: dict[int, dict[str, Any]] = {}
    for collection, tree in trees.items():
      stacked[collection], numbered = split(tree)
      for number, value in numbered.items():
        own.setdefault(number, {})[collection] = value
    if not shared:
      return cls(stacked, None, own)
    common = {collection: {name: tree[name] for name in tree if name != LORA} for collection, tree in stacked.items()}
    return cls({LORA: stacked.get("params", {}).get(LORA)}, common, own)

  def layer(self, layout: Layout, layer: Layer) -> tuple[Any, Any]:
    """Returns the variables and the adapters of one layer."""
    if self.shared is not None:
      adapters = self.own[layer.number]["params"][LORA] if layer.number in self.own else self.stacked[LORA]
      return None, adapters if layer.number in self.own else pure.at(adapters, layer.number)
    return self.own.get(layer.number) or pure.at(self.stacked, layout.index(layer)), None

  def layers(self, layout: Layout, first: Layer, count: int) -> tuple[Any, Any]:
    """Returns the variables and the adapters of `count` layers of one kind from `first` on, stacked."""
    if first.alone:
      return jax.tree.map(lambda leaf: leaf[None], self.own[first.number]), None
    start = first.number if self.shared is not None else layout.index(first)
    cut = jax.tree.map(lambda leaf: leaf if len(leaf) == count else leaf[start : start + count], self.stacked)
    return (None, cut[LORA]) if self.shared is not None else (cut, None)


def collect(changed: dict[str, dict[str, Any]], first: Layer, made: Mapping[str, Any]) -> None:
  """Adds the variables `made` by layers of one kind, stacked in order, to `changed`, by letter and collection."""
  for collection, tree in made.items():
    trees = changed.setdefault(first.letter, {}).setdefault(collection, {})
    if first.alone:
      trees[str(first.number)] = pure.at(tree, 0)
      continue
    before, own = split(trees)
    if before:
      tree = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), before, dict(tree))
    trees.update(tree)


def split(tree: Tree) -> tuple[dict[str, Any], dict[int, Any]]:
  """Splits the tree of a letter in two: stacked (or shared) variables, and variables of single layers by number."""
  stacked = {name: value for name, value in tree.items() if not name.isdigit()}
  return stacked, {int(name): value for name, value in tree.items() if name.isdigit()}


def apart(layout: Layout, variables: Mapping[str, Tree]) -> dict[str, dict[str, Any]]:
  """Returns variables by collection with nothing stacked: each layer's under its number."""
  return {collection: _each_letter(layout, tree, _letter_apart) for collection, tree in variables.items()}


def together(layout: Layout, variables: Mapping[str, Tree]) -> dict[str, dict[str, Any]]:
  """Returns the inverse of `apart`: variables by collection, with layers of one letter stacked for loops."""
  return {collection: _each_letter(layout, tree, _letter_together) for collection, tree in variables.items()}


def _each_letter(layout: Layout, tree: Tree, change: Any) -> dict[str, Any]:
  letters = {layer.letter for layer in layout.layers}
  return {name: change(layout, name, value) if name in letters else value for name, value in tree.items()}


def _letter_apart(layout: Layout, letter: str, tree: Tree) -> dict[str, Any]:
  stacked, own = split(tree)
  kept: dict[str, Any] = {str(number): value for number, value in own.items()}
  if letter in layout.shared:
    kept |= {name: value for name, value in stacked.items() if name != LORA}
    stacked = {LORA: stacked[LORA]} if LORA in stacked else {}
  if stacked:
    for layer in layout.of_letter(letter):
      if layer.number not in own:
        kept[str(layer.number)] = pure.at(stacked, layout.index(layer))
  return kept


def _letter_together(layout: Layout, letter: str, tree: Tree) -> dict[str, Any]:
  stacked, own = split(tree)
  layers = layout.of_letter(letter)
  kept: dict[str, Any] = {str(layer.number): own[layer.number] for layer in layers if layer.alone}
  rest = [own[layer.number] for layer in layers if layer.number in own and not layer.alone]
  return {**kept, **stacked, **(join(rest) if rest else {})}


def join(trees: Sequence[Tree]) -> Any:
  """Stacks trees of single layers, with or without boxes of axis names."""
  boxed = lambda leaf: isinstance(leaf, meta.AxisMetadata)
  plain = pure.stack([meta.unbox(tree) for tree in trees])
  boxes = jax.tree.map(
    lambda leaf, value: leaf.replace_boxed(value) if boxed(leaf) else value, trees[0], plain, is_leaf=boxed
  )
  return meta.add_axis(boxes, 0, {nn.PARTITION_NAME: "layers"})
