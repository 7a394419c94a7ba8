"""A table of docs/scale.md: what XLA's compiler for TPUs plans for an update of a large model.

  EXTRAS=tpu ./dev setup
  ./dev python -m scripts.scale_on_tpus [mamba2_2.7b …]

The compiler is in libtpu and needs no TPU: it compiles for a described machine. Its plan has what the first table
leaves out: parameters gathered for a layer, logits and its own buffers. It says that an update fits, not that it is
fast. XLA's implementations run, as no TPU has proven the kernels of this project.
"""

import os
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from arguments import Parser
from mistake import Mistake
from scripts import scale
from training import sharding
from training import step as step_lib

# without these libtpu asks a service of the cloud which TPU it is on
SETTINGS = {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5litepod-4"}
TOPOLOGIES = {"v5e-256": "v5e:16x16", "v5p-64": "v5p:4x4x2"}


def compiled(case: scale.Case) -> Any:
  """Compiles an update for all devices of a described machine.

  Raises:
    Mistake: libtpu is not installed.
    jax.errors.JaxRuntimeError: the update does not fit.
  """
  try:
    devices = topologies.get_topology_desc(topology_name=TOPOLOGIES[case.machine], platform="tpu").devices
  except (RuntimeError, ImportError, ValueError, NotImplementedError) as e:
    raise Mistake(f"the compiler for TPUs is not here ({e}); EXTRAS=tpu ./dev setup installs it") from e
  mesh = sharding.make_mesh(**{"data": 1, **case.mesh}, devices=devices)
  plan = scale.planned(case)
  placed = lambda z, spec: jax.ShapeDtypeStruct(z.shape, z.dtype, sharding=NamedSharding(mesh, spec))
  state = jax.tree.map(lambda z: placed(z, z.sharding.spec), plan.state(mesh.abstract_mesh))
  by_tokens = PartitionSpec(sharding.ROWS, "sequence")
  batch = jax.tree.map(lambda z: placed(z, by_tokens), plan.model.example(case.rows, case.length))
  with sharding.active(mesh):
    update = step_lib.make_update(plan.model, plan.tx, like=state)
    return update.trace(state, batch).lower(lowering_platforms=("tpu",)).compile()


def table(cases: Iterator[scale.Case]) -> Iterator[str]:
  """Yields the table, row by row, in GB a device."""
  titles = "model", "machine", "mesh", "rows x tokens", "state", "temporary", "peak", "of", *scale.KINDS, "seconds"
  yield f"| {' | '.join(titles)} |"
  yield "|---" * len(titles) + "|"
  for case in cases:
    start = time.perf_counter()
    what = scale.beginning(case)
    try:
      program = compiled(case)
    except jax.errors.JaxRuntimeError as e:
      # the compiler's first line says how much more it wants
      yield f"{what} {str(e).splitlines()[0]} |"
      continue
    plan, found = program.memory_analysis(), scale.collectives(program.as_text())
    sizes = plan.argument_size_in_bytes, plan.temp_size_in_bytes, plan.peak_memory_in_bytes
    numbers = " | ".join(f"{size / scale.GB:.2f}" for size in sizes)
    counts = " | ".join(str(len(found.get(kind, ()))) for kind in scale.KINDS)
    room, seconds = scale.MACHINES[case.machine][1], time.perf_counter() - start
    yield f"{what} {numbers} | {room} | {counts} | {seconds:.0f} |"


def main() -> None:
  """Prints the table."""
  parser = Parser(description=__doc__.split("\n")[0])
  parser.add_argument("models", nargs="*", help="those of the first table by default")
  args = parser.parse_args()
  os.environ |= {name: os.environ.get(name, value) for name, value in SETTINGS.items()}
  jax.config.update("jax_platforms", "cpu")
  # what chooses by platform sees a TPU
  jax.default_backend = lambda: "tpu"
  wanted = (case for case in scale.CASES if case.machine in TOPOLOGIES)
  for row in table(case for case in wanted if not args.models or case.model in args.models):
    print(row, flush=True)


if __name__ == "__main__":
  main()
