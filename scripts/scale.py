"""The tables of docs/scale.md: what each device of a cluster holds of a model, and how its devices talk.

  python -m scripts.scale                # memory, from shapes alone: seconds, and no device
  python -m scripts.scale --collectives  # of small models on eight virtual devices, as XLA compiles them: minutes

Parameters, gradients and the optimizer's state are exact: the shapes that `training.state.blueprint` gives each device
of a described mesh (`jax.sharding.AbstractMesh`). Activations are what JAX keeps to differentiate, by `jax.eval_shape`:
with remat="full" one array of tokens by width for each branch, and all that the largest branch keeps while its own
backward pass runs. Not counted: what XLA holds besides, as parameters gathered for one layer.
"""

import collections
import json
import math
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from arguments import Parser
from configs import base
from hybrids import mixer as mixer_lib
from hybrids.model import build_model
from hybrids.recipes import get_recipe
from training import optimizer, sharding
from training import state as state_lib

GB = 1e9
BATCH_BYTES = 2  # activations are bfloat16
# devices, and the memory of each in GB: pages "TPU v5e" and "TPU v5p" of cloud.google.com/tpu/docs, where v5p-64 has 64
# cores, two to a chip and to a device of JAX; NVIDIA's data sheet of the H200
MACHINES = {"v5e-256": (256, 16), "v5p-64": (32, 95), "8 x H200": (8, 141)}


class Case(NamedTuple):
  """One model on one machine: the mesh, and the batch of an update."""

  model: str
  machine: str
  mesh: Mapping[str, int]
  rows: int
  length: int


CASES = (
  Case("mamba2_2.7b", "v5e-256", dict(data=16, fsdp=16), 256, 2048),
  Case("mamba2_2.7b", "v5e-256", dict(fsdp=32, sequence=8), 32, 131_072),
  Case("mamba2_2.7b", "v5p-64", dict(fsdp=32), 128, 2048),
  Case("mamba2_2.7b", "8 x H200", dict(fsdp=8), 64, 2048),
  Case("falcon_mamba_7b", "v5e-256", dict(fsdp=64, tensor=4), 256, 2048),
  Case("falcon_mamba_7b", "v5e-256", dict(fsdp=32, sequence=8), 32, 65_536),
  Case("falcon_mamba_7b", "v5p-64", dict(fsdp=32), 128, 2048),
  Case("falcon_mamba_7b", "8 x H200", dict(fsdp=8), 32, 2048),
  Case("jamba_v0.1", "v5e-256", dict(fsdp=64, tensor=4), 128, 4096),
  Case("jamba_v0.1", "v5e-256", dict(fsdp=32, sequence=8), 32, 65_536),
  Case("jamba_v0.1", "v5p-64", dict(fsdp=8, tensor=4), 64, 4096),
  Case("jamba_v0.1", "8 x H200", dict(fsdp=8), 8, 4096),
)
# models of a few layers that have the parts of the large ones, eight heads among them, and the meshes of eight devices
# they are compiled for
SMALL = {
  "mamba2": {"mixer": "mamba2", "m.head_size": 16, "width": 64, "depth": 2},
  "mamba": dict(mixer="mamba", width=64, depth=2),
  "mamba, attention, experts": dict(pattern="m-ae", m="mamba", a="softmax", e="moe", width=64, depth=4),
}
MESHES = (dict(data=8), dict(fsdp=8), dict(tensor=8), dict(sequence=8), dict(fsdp=2, sequence=2, tensor=2))
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


def of_shard(tree: Any) -> int:
  """Returns the bytes that one device holds of arrays, or of their shapes, with shardings."""
  size = lambda leaf: math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
  return sum(map(size, jax.tree.leaves(tree)))


class Planned(NamedTuple):
  """Holds what a case trains."""

  model: nn.Module
  task: Any
  tx: optax.GradientTransformation

  def state(self, mesh: AbstractMesh) -> state_lib.TrainState:
    """Returns the shapes of the state of an update, with their places on a mesh."""
    return state_lib.blueprint(self.model, self.task, self.tx, mesh, stateful=False)[1]


def planned(case: Case) -> Planned:
  """Returns the model with remat="full" in bfloat16, and AdamW."""
  recipe = get_recipe(case.model)
  sections = recipe.model
  sections["body"] = sections["body"] | {"remat": "full"}
  model = build_model(recipe, **sections, dtype="bfloat16")
  task = types.SimpleNamespace(
    batch=case.rows, length=case.length, head=recipe.head, features=recipe.features, vocab=recipe.vocab
  )
  params = state_lib.variables_shape(model, task)["params"]
  return Planned(model, task, optimizer.build(params, steps=1000, **base.defaults().optimizer.to_dict()))


def memory(case: Case) -> dict[str, Any]:
  """Returns a row of the first table, in bytes a device."""
  plan = planned(case)
  model = plan.model
  mesh = AbstractMesh(tuple(case.mesh.get(axis, 1) for axis in sharding.AXES), sharding.AXES)
  sharding.check_batch(case.rows, case.length, mesh)
  state = plan.state(mesh)
  rows, length = case.rows // sharding.shards(mesh), case.length // mesh.shape["sequence"]
  kept = model.body["depth"] * rows * length * model.width * BATCH_BYTES
  devices, room = MACHINES[case.machine]
  assert mesh.size == devices, f"{case.machine} has {devices} devices, not {mesh.size}"
  return {
    "parameters": of_shard(state.params),
    "gradients": of_shard(state.params),
    "optimizer": of_shard(state.opt),
    "kept": kept,
    "branch": max(of_branches(model, rows, length)) // mesh.shape["tensor"],
    "room": room * GB,
  }


def of_branches(model: nn.Module, rows: int, length: int) -> Iterator[int]:
  """Yields the bytes that each kind of branch keeps for its backward pass, before tensor parallelism divides them."""
  x = jax.ShapeDtypeStruct((rows, length, model.width), jnp.bfloat16)
  for section in model.body["letters"].values():
    mixer = mixer_lib.build_spec(section, width=model.width, layer=0, depth=model.body["depth"])
    variables = nn.meta.unbox(jax.eval_shape(mixer.init, jax.random.key(0), x))
    pull = jax.eval_shape(lambda *given, mixer=mixer: jax.vjp(mixer.apply, *given)[1], variables, x)
    ours = {leaf.shape for leaf in jax.tree.leaves(variables)}
    yield sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pull) if leaf.shape not in ours)


def words(mesh: Mapping[str, int]) -> str:
  """Returns a mesh as tables have it."""
  return " x ".join(f"{axis} {size}" for axis, size in mesh.items())


def beginning(case: Case) -> str:
  """Returns the first cells of a case's row."""
  return f"| {case.model} | {case.machine} | {words(case.mesh)} | {case.rows} x {case.length:,} |"


def memory_table() -> Iterator[str]:
  """Yields the first table, row by row."""
  yield "| model | machine | mesh | rows x tokens | parameters | gradients | optimizer | kept | branch | sum | of |"
  yield "|---|---|---|---|---|---|---|---|---|---|---|"
  for case in CASES:
    found = memory(case)
    room = found.pop("room")
    parts = " | ".join(f"{value / GB:.2f}" for value in (*found.values(), sum(found.values())))
    yield f"{beginning(case)} {parts} | {room / GB:.0f} |"


def collectives(program: str) -> dict[str, list[str]]:
  """Returns the shapes of the results of a compiled program's collectives, by kind."""
  found: dict[str, list[str]] = collections.defaultdict(list)
  for shapes, kind in re.findall(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\(", program):
    found[kind] += re.findall(r"\w+\[[\d,]*\]", shapes)
  return dict(found)


def compiled(fields: Mapping[str, Any], mesh: Mapping[str, int]) -> tuple[dict[str, list[str]], Any, int]:
  """Compiles an update of a small model, and returns its collectives, its parameters' places, and temporary bytes."""
  from training.run import Run

  argument = ",".join(f"{key}={value}" for key, value in fields.items())
  run = Run.from_config(f"configs/bytes.py:{argument},batch=8,length=512,mesh.data=1," + places(mesh))
  with run.on_mesh():
    batch = sharding.put(next(iter(run.task.train(0, 1))), run.mesh)
    program = run._update.lower(run.like, batch).compile()
  return collectives(program.as_text()), run.like.params, program.memory_analysis().temp_size_in_bytes


def gathered(found: Mapping[str, list[str]], params: Any) -> tuple[int, int]:
  """Returns how many all-gathers undo what fsdp divides of a parameter, and how many others make a whole parameter."""
  leaves = jax.tree.leaves(params)
  whole = {shape for leaf in leaves for shape in forms(leaf.shape)}
  by_fsdp = {shape for leaf in leaves if divided(leaf) for shape in forms(without_fsdp(leaf))}
  shapes = [re.findall(r"\d+", shape.split("[")[1]) for shape in found.get("all-gather", ())]
  kinds = [tuple(n for n in map(int, shape) if n > 1) for shape in shapes]
  return sum(shape in by_fsdp for shape in kinds), sum(shape in whole - by_fsdp for shape in kinds)


def forms(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
  """Yields the shapes that a matrix may have in a program: as it is, of one layer of a stack, and either transposed."""
  for one in (shape, shape[1:]):
    bare = tuple(n for n in one if n > 1)
    if len(bare) > 1:
      yield from (bare, (*bare[:-2], bare[-1], bare[-2]))


def without_fsdp(leaf: Any) -> tuple[int, ...]:
  """Returns the shape that a device would hold of a parameter, did fsdp divide nothing."""
  mesh, spec = leaf.sharding.mesh, leaf.sharding.spec
  others = (None if axes == "fsdp" else axes for axes in spec)
  others = (tuple(a for a in axes if a != "fsdp") if isinstance(axes, tuple) else axes for axes in others)
  return NamedSharding(mesh, PartitionSpec(*others)).shard_shape(leaf.shape)


def divided(leaf: Any) -> bool:
  """Says whether fsdp divides a parameter."""
  return leaf.sharding.shard_shape(leaf.shape) != without_fsdp(leaf)


def places(mesh: Mapping[str, int]) -> str:
  return ",".join(f"mesh.{axis}={mesh.get(axis, 1)}" for axis in sharding.AXES)


def collectives_table() -> Iterator[str]:
  """Yields the second table, row by row."""
  yield f"| model | mesh | {' | '.join(KINDS)} | parameters gathered | others whole | temporary MB a device |"
  yield "|---|" + "---|" * (len(KINDS) + 4)
  for name, fields in SMALL.items():
    for mesh in MESHES:
      found, params, temporary = compiled(fields, mesh)
      numbers = [*(len(found.get(kind, ())) for kind in KINDS), *gathered(found, params)]
      yield f"| {name} | {words(mesh)} | {' | '.join(map(str, numbers))} | {temporary / 1e6:.1f} |"


def main() -> None:
  """Prints the tables."""
  parser = Parser(description=__doc__.split("\n")[0])
  parser.add_argument("--collectives", action="store_true", help="compile small models on eight virtual devices")
  parser.add_argument("--json", action="store_true", help="the rows of the first table as JSON, in bytes")
  args = parser.parse_args()
  if args.json:
    print(json.dumps([{**case._asdict(), **memory(case)} for case in CASES]))
    return
  if args.collectives:
    jax.config.update("jax_num_cpu_devices", 8)
  for row in collectives_table() if args.collectives else memory_table():
    print(row, flush=True)


if __name__ == "__main__":
  main()
