"""One mesh with four axes, and one table that says which axis each named dimension of a parameter lies on.

`data` and `fsdp` split the batch, and `fsdp` the parameters too; `sequence` splits time; `tensor` splits channels,
heads and experts. Everything else follows from the compiler.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from mistake import Mistake

AXES = ("data", "fsdp", "sequence", "tensor")
ROWS = ("data", "fsdp")
# first match wins, and a mesh axis is used once per array: activations give fsdp to the batch, so their embed is whole
RULES = (
  ("batch", ROWS),
  ("time", "sequence"),
  ("vocab", "tensor"),
  # of tables that no device ever has whole: a lookup moves what it finds
  ("rows", ("tensor", "fsdp")),
  ("inner", "tensor"),
  ("heads", "tensor"),
  ("kv", "tensor"),
  ("expert", "tensor"),
  ("mlp", "tensor"),
  ("embed", "fsdp"),
)
# entries of one layer's array from which on fsdp divides it whatever its axes are called
LARGE = 2**16


def make_mesh(
  *, data: int = -1, fsdp: int = 1, sequence: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Makes the mesh over all devices; at most one size may be -1, which takes the remaining devices.

  Raises:
    ValueError: the sizes do not multiply to the number of devices, or one process would hold no rows of its own.
  """
  devices = jax.devices() if devices is None else list(devices)
  sizes = dict(zip(AXES, (data, fsdp, sequence, tensor)))
  text = ", ".join(f"mesh.{name}={size}" for name, size in sizes.items())
  free = [name for name, size in sizes.items() if size == -1]
  if len(free) > 1 or any(size < 1 for size in sizes.values() if size != -1):
    raise Mistake(f"{text}; each must be 1 or more, and at most one may be -1 (what the others leave)")
  given = math.prod(size for size in sizes.values() if size != -1)
  if free and len(devices) % given == 0:
    sizes[free[0]] = len(devices) // given
  elif free or given != len(devices):
    raise Mistake(
      f"{text} asks for {'a multiple of ' if free else ''}{given} devices, and there are {len(devices)}; "
      "change a size, or on a CPU set mesh.cpu_devices"
    )
  shards = sizes["data"] * sizes["fsdp"]
  if shards % jax.process_count():
    raise Mistake(
      f"{text}: the batch is split into {shards}, and {jax.process_count()} processes each need rows of their own; "
      "make mesh.data · mesh.fsdp a multiple of the processes"
    )
  return jax.make_mesh(tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


@contextmanager
def active(mesh: Mesh) -> Iterator[None]:
  """Makes the mesh and the rules known to everything that is traced inside."""
  with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
    yield


def of_variables(tree: Any, mesh: Mesh | AbstractMesh) -> Any:
  """Returns shardings of Linen variables, shapes in their boxes of axis names; the result has no boxes.

  A dimension that its mesh axis does not divide stays whole. A large array of which `fsdp` has no dimension by RULES is
  divided by it along the longest that it divides, as are maps between channels and step sizes.
  """

  def one(leaf: Any) -> NamedSharding:
    if not isinstance(leaf, nn.meta.Partitioned):
      return NamedSharding(mesh, PartitionSpec())
    fitting = _fit(nn.logical_to_mesh_axes(leaf.names, RULES), leaf.value.shape, mesh)
    return NamedSharding(mesh, _divided(fitting, leaf.names, leaf.value.shape, mesh))

  return jax.tree.map(one, tree, is_leaf=lambda leaf: isinstance(leaf, nn.meta.AxisMetadata))


def _fit(spec: PartitionSpec | None, shape: Sequence[int], mesh: Mesh | AbstractMesh) -> PartitionSpec:
  divides = lambda axes, n: n % math.prod(mesh.shape[axis] for axis in _names(axes)) == 0
  return PartitionSpec(*(axes if divides(axes, n) else None for axes, n in zip(spec or (), shape)))


def _divided(
  spec: PartitionSpec, names: Sequence[str | None], shape: Sequence[int], mesh: Mesh | AbstractMesh
) -> PartitionSpec:
  """Gives `fsdp` the longest dimension that it divides, of a large array that has it nowhere.

  The dimension over layers, which are read one by one, stays whole.
  """
  of_layer = {i: n for i, (name, n) in enumerate(zip(names, shape)) if name != "layers"}
  given = {axis for axes in spec for axis in _names(axes)}
  if "fsdp" in given or mesh.shape["fsdp"] == 1 or math.prod(of_layer.values()) < LARGE:
    return spec
  for i in sorted(of_layer, key=lambda i: -of_layer[i]):
    axes = (*_names(spec[i]), "fsdp")
    if shape[i] % math.prod(mesh.shape[axis] for axis in axes) == 0:
      return PartitionSpec(*spec[:i], axes if len(axes) > 1 else "fsdp", *spec[i + 1 :])
  return spec


def _names(axes: Any) -> tuple[str, ...]:
  """Returns the mesh axes that divide a dimension."""
  return (axes,) if isinstance(axes, str) else tuple(axes or ())


def of_optimizer(opt: Any, params: Any, shardings: Any, mesh: Mesh | AbstractMesh) -> Any:
  """Returns shardings of an optimizer's state: leaves with a parameter's path and shape are sharded as it is."""
  known = {}
  for (path, leaf), sharding in zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(shardings)):
    known[tuple(path), leaf.shape] = sharding

  def one(path: Any, leaf: Any) -> NamedSharding:
    ends = (known.get((tuple(path[i:]), leaf.shape)) for i in range(len(path)))
    return next((sharding for sharding in ends if sharding is not None), NamedSharding(mesh, PartitionSpec()))

  return jax.tree_util.tree_map_with_path(one, opt)


def of_rows(tree: Any, mesh: Mesh | AbstractMesh) -> Any:
  """Returns shardings of arrays whose first axis is the batch: recurrent states."""
  return jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec(ROWS)), tree)


def shards(mesh: Mesh | AbstractMesh) -> int:
  """Returns into how many parts the batch is split."""
  return math.prod(mesh.shape[axis] for axis in ROWS)


def check_batch(batch: int, length: int, mesh: Mesh | AbstractMesh) -> None:
  """Raises a ValueError where the batch or its time axis does not divide over the mesh."""
  if batch % shards(mesh):
    raise Mistake(
      f"data.batch={batch} does not divide over mesh.data={mesh.shape['data']} times mesh.fsdp={mesh.shape['fsdp']}; "
      f"make it a multiple of {shards(mesh)}, or the mesh smaller"
    )
  if length % mesh.shape["sequence"]:
    raise Mistake(
      f"data.length={length} does not divide over mesh.sequence={mesh.shape['sequence']}; make it a multiple, or "
      "mesh.sequence=1"
    )


def put(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """Makes the global batch of this process's rows on the devices, rows over data and fsdp, time over sequence."""

  def one(array: np.ndarray) -> jax.Array:
    time = "sequence" if array.ndim > 1 and array.shape[1] % mesh.shape["sequence"] == 0 else None
    spec = PartitionSpec(ROWS, time) if array.ndim > 1 else PartitionSpec(ROWS)
    return jax.make_array_from_process_local_data(NamedSharding(mesh, spec), array)

  return {key: one(np.asarray(value)) for key, value in batch.items()}
