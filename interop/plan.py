"""A family's mapping table laid over one model: which tensors make up which parameters, checked before any is read."""

import functools
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from hybrids.model import Model, build_model
from interop import families
from interop.config import Config
from interop.rows import Misfit, Row
from interop.tensors import Tensors, some
from mistake import Mistake


class Place(NamedTuple):
  """A leaf of the variables, and the index on its first axis if layers are stacked there."""

  leaf: str
  layer: int | None


class Line(NamedTuple):
  """A row with its numbers filled in: tensors of theirs, and keys of `Plan.places`."""

  theirs: tuple[str, ...]
  ours: tuple[str, ...]
  row: Row


class Plan(NamedTuple):
  """How the tensors of one checkpoint and the variables of its model correspond.

  Attributes:
    shapes: of each leaf of the variables, by its path after its collection, "params:embed/embedding".
    places: where each layer's own part is: "params:body/m/3/norm/scale" is entry 3 of "params:body/m/norm/scale".
    constants: tensors of theirs that follow from the config.
  """

  family: Any
  model: Model
  boxed: Any
  shapes: dict[str, jax.ShapeDtypeStruct]
  places: dict[str, Place]
  lines: list[Line]
  constants: Mapping[str, np.ndarray]

  def check(self, tensors: Tensors) -> None:
    """Checks that every tensor has its place, every place its tensor, and that their shapes fit.

    Raises:
      Mistake: it lists all that do not.
    """
    wanted = {name for line in self.lines for name in line.theirs}
    needed = {name for name in tensors.shapes if name in wanted or not families.skipped(self.family, name)}
    have = needed - self.constants.keys()
    wrong = []
    if missing := wanted - have:
      wrong.append(f"these tensors are missing: {some(missing)}")
    if extra := have - wanted:
      wrong.append(f"these are not known: {some(extra)}")
    tensors.check_floats(have)
    shapes = [text for line in self.lines if have.issuperset(line.theirs) for text in self._misfits(line, tensors)]
    if shapes:
      wrong.append(f"these have other shapes than the config says: {some(shapes)}")
    others = [name for name in needed - have if not np.array_equal(tensors.integers(name), self.constants[name])]
    if others:
      wrong.append(f"these have other values than follow from the config: {some(others)}")
    if wrong:
      raise Mistake(f"{tensors.folder} does not hold the model of its config.json: {'; '.join(wrong)}")

  def _misfits(self, line: Line, tensors: Tensors) -> Iterator[str]:
    given = tuple(tensors.shapes[name] for name in line.theirs)
    names = f"{' '.join(line.theirs[:1])} {list(*given[:1])}" + (" and more" if len(given) > 1 else "")
    made = _made(line.row, given)
    if isinstance(made, str):
      yield f"{names}: {made}"
      return
    for key, shape in zip(line.ours, made, strict=True):
      if shape != self.shape(key):
        yield f"{names} makes {list(shape)} of {list(self.shape(key))} for {key.partition(':')[2]}"

  def shape(self, key: str) -> tuple[int, ...]:
    """Returns the shape of a place."""
    place = self.places[key]
    shape = self.shapes[place.leaf].shape
    return shape if place.layer is None else shape[1:]

  def fill(self, tensors: Tensors, shardings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Reads all variables, one tensor and one leaf at a time; with shardings one shard at a time."""
    sources: dict[str, list[tuple[int | None, Line, int]]] = {leaf: [] for leaf in self.shapes}
    for line in self.lines:
      for number, key in enumerate(line.ours):
        sources[self.places[key].leaf].append((self.places[key].layer, line, number))
    variables: dict[str, Any] = {}
    for leaf, struct in self.shapes.items():
      read = functools.partial(_read, tensors, struct, sources[leaf])
      if shardings is None:
        value = jnp.asarray(read((slice(None),) * len(struct.shape)))
      else:
        value = _in_shards(struct, shardings[leaf], read)
      put(variables, leaf, value)
    return variables

  def check_variables(self, variables: Mapping[str, Any]) -> None:
    """Checks that variables are those of the model.

    Raises:
      Mistake: it lists those that are missing, unknown or of another shape.
    """
    have = {leaf: value.shape for leaf, value in leaves(variables).items()}
    want = {leaf: value.shape for leaf, value in self.shapes.items()}
    if wrong := {leaf for leaf in have.keys() | want.keys() if have.get(leaf) != want.get(leaf)}:
      named = (f"{leaf} {have.get(leaf, 'missing')}, not {want.get(leaf, 'known')}" for leaf in wrong)
      raise Mistake(f"the variables are not those of the model that the config describes: {some(named)}")

  def tensors(self, variables: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Returns their tensors of our variables, one row at a time."""
    flat = leaves(variables)
    for line in self.lines:
      arrays = []
      for key in line.ours:
        leaf, index = self.places[key]
        value = flat[leaf] if index is None else flat[leaf][index]
        arrays.append(np.asarray(value, np.float32))
      yield from zip(line.theirs, line.row.away(arrays), strict=True)
    yield from self.constants.items()


def make(values: Mapping[str, Any], where: str, dtype: str) -> Plan:
  """Makes the plan of a config.json.

  Raises:
    Mistake: the family is unknown, or a key of the config is or has an unknown value.
  """
  family = families.find(families.model_type(values), where)
  config = Config(values, where)
  try:
    section, rows = family.sections(config), family.rows(config)
    vocab = family.vocab(config) if hasattr(family, "vocab") else config.get("vocab_size")
  except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
    reason = " ".join(str(error).split())
    raise Mistake(f"{where} has a value of a kind or size that cannot be: {reason}") from error
  config.finish(family.IGNORED)
  model = build(section, vocab=vocab, dtype=dtype)
  boxed = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
  shapes = leaves(meta.unbox(boxed))
  places = _places(model, shapes)
  letters = len(_body(model)[0].layers)
  count = getattr(family, "LETTERS", 0)
  lines = list(_lines(model, rows, [i // count for i in range(letters)] if count else family.numbers(config)))
  made = [key for line in lines for key in line.ours]
  unmade, unknown = places.keys() - made, set(made) - places.keys()
  assert not unmade, f"{family.__name__} has no row for {some(unmade)}"
  assert not unknown, f"{family.__name__} has rows for {some(unknown)}, which the model lacks"
  constants = family.constants(config) if hasattr(family, "constants") else {}
  return Plan(family, model, boxed, shapes, places, lines, constants)


def build(section: Mapping[str, Any], *, vocab: int, dtype: str) -> Model:
  """Builds the language model of a section; parameters are kept in its dtype, slow ones in float32."""
  sizes = SimpleNamespace(head="lm", vocab=vocab, features=None, classes=None, length=1)
  return build_model(sizes, **section, dtype=dtype, param_dtype=dtype)


def leaves(variables: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the leaves of variables by their paths after their collections: "params:embed/embedding"."""
  flat = jax.tree_util.tree_leaves_with_path(variables)
  names = [[str(getattr(part, "key", part)) for part in path] for path, _ in flat]
  return {f"{collection}:{'/'.join(path)}": leaf for (collection, *path), (_, leaf) in zip(names, flat)}


def put(variables: dict[str, Any], leaf: str, value: Any) -> None:
  """Stores a leaf under its path."""
  collection, _, path = leaf.partition(":")
  *parts, last = (collection, *path.split("/"))
  here = variables
  for part in parts:
    here = here.setdefault(part, {})
  here[last] = value


def _body(model: Model) -> tuple[Any, str]:
  """Returns the layout of the stack, and the path of its variables."""
  body = model._body(parent=None)
  return body.layout, f"body/{getattr(body, 'WITHIN', '')}"


def _places(model: Model, shapes: Mapping[str, Any]) -> dict[str, Place]:
  layout, within = _body(model)
  letters = set(layout.letters)
  found: dict[str, Place] = {}
  for leaf in shapes:
    collection, _, path = leaf.partition(":")
    letter, *rest = path.removeprefix(within).split("/")
    stacked = path.startswith(within) and letter in letters and letter not in layout.shared
    if not stacked or rest[0].isdigit():
      found[leaf] = Place(leaf, None)
      continue
    for layer in layout.of_letter(letter):
      if not layer.alone:
        key = f"{collection}:{within}{letter}/{layer.number}/{'/'.join(rest)}"
        found[key] = Place(leaf, layout.index(layer))
  return found


def _lines(model: Model, rows: list[Row], numbers: list[int]) -> Iterator[Line]:
  layout, within = _body(model)
  for row in rows:
    if not row.by_layer:
      yield Line(row.theirs, tuple(map(_with_collection, row.ours)), row)
      continue
    for number, layer in zip(numbers, layout.layers, strict=True):
      if layer.letter in row.letters:
        theirs = tuple(name.replace("{i}", str(number)) for name in row.theirs)
        yield Line(theirs, tuple(_of_layer(path, within, layer) for path in row.ours), row)


def _with_collection(path: str) -> str:
  return path if ":" in path else f"params:{path}"


def _of_layer(path: str, within: str, layer: Any) -> str:
  collection, _, path = _with_collection(path).partition(":")
  return f"{collection}:{within}{layer.letter}/{layer.number}/{path.partition('/')[2]}"


@functools.lru_cache(maxsize=4096)
def _made(row: Row, given: tuple[tuple[int, ...], ...]) -> list[tuple[int, ...]] | str:
  """Returns the shapes that a row makes of these; a text where it cannot."""
  try:
    # views of a single number: reshaping and cutting them takes no memory
    return [array.shape for array in row.here([np.broadcast_to(np.float32(0), shape) for shape in given])]
  except Misfit as error:
    return str(error)
  except (ValueError, IndexError) as error:
    return f"it cannot be rearranged ({error})"


def _in_shards(
  struct: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding, read: Callable[[tuple[slice, ...]], np.ndarray]
) -> jax.Array:
  """Makes an array shard by shard, so that the host holds one of them at a time; copies of a shard are read once."""
  places = sharding.addressable_devices_indices_map(struct.shape)
  by_index: dict[str, list[jax.Device]] = {}
  for device, index in places.items():
    by_index.setdefault(str(index), []).append(device)
  arrays: dict[jax.Device, jax.Array] = {}
  for devices in by_index.values():
    value = read(places[devices[0]] or ())
    for device in devices:
      arrays[device] = jax.device_put(value, device)
    jax.block_until_ready([arrays[device] for device in devices])
    # before the next one is read
    del value
  return jax.make_array_from_single_device_arrays(struct.shape, sharding, [arrays[device] for device in places])


def _read(
  tensors: Tensors, struct: jax.ShapeDtypeStruct, sources: list[tuple[int | None, Line, int]], index: tuple[slice, ...]
) -> np.ndarray:
  """Returns the part of a leaf at an index."""

  def made(line: Line, number: int) -> np.ndarray:
    arrays = [tensors.read(name) for name in line.theirs]
    if not line.row.moves:
      # before anything is added or multiplied: bfloat16 would round it
      arrays = [np.asarray(array, np.float32) for array in arrays]
    return line.row.here(arrays)[number]

  if sources[0][0] is None and sources[0][1].row.sizes:
    return _rows(tensors, struct, sources[0][1], index)
  if sources[0][0] is None:
    # a copy, as a view would keep the whole tensor in memory
    return np.array(made(*sources[0][1:])[index], struct.dtype)
  first, rest = index[0].indices(struct.shape[0]), index[1:]
  wanted = {layer: place for place, layer in enumerate(range(*first))}
  shape = [len(range(*part.indices(size))) for part, size in zip(index, struct.shape)]
  leaf = np.empty(shape, struct.dtype)
  for layer, line, number in sources:
    assert layer is not None, "a stacked leaf is stacked everywhere"
    if layer in wanted:
      leaf[wanted[layer]] = made(line, number)[rest]
  return leaf


def _rows(tensors: Tensors, struct: jax.ShapeDtypeStruct, line: Line, index: tuple[slice, ...]) -> np.ndarray:
  """Returns the part of a leaf at an index whose rows are those of several tensors, which are read one at a time."""
  shape = [len(range(*part.indices(size))) for part, size in zip(index, struct.shape)]
  first, last, _ = index[0].indices(struct.shape[0])
  leaf, start = np.empty(shape, struct.dtype), 0
  for name, size in zip(line.theirs, line.row.sizes, strict=True):
    begin, end = max(first, start), min(last, start + size)
    if begin < end:
      leaf[begin - first : end - first] = tensors.read(name)[(slice(begin - start, end - start), *index[1:])]
    start += size
  return leaf
