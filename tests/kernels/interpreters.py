"""JAX's interpreters of kernels for TPUs and GPUs, as JAX 0.10.2, 0.11 and 0.12 have them."""

import contextlib
import io
from collections.abc import Iterator

from jax.experimental.pallas import mosaic_gpu as plgpu
from jax.experimental.pallas import tpu as pltpu


@contextlib.contextmanager
def interpreted_tpu() -> Iterator[None]:
  """Kernels for TPUs that are traced here run in JAX's interpreter of a TPU of two cores, which needs none.

  What is run within must have ended within, too.

  Raises:
    RuntimeError: two accesses to memory raced.
  """
  said = io.StringIO()
  # Two cores, among which the programs of parallel axes are dealt: with one, nothing would race but transfers.
  params = pltpu.InterpretParams(detect_races=True, num_cores_or_threads=2)
  try:
    with contextlib.redirect_stdout(said), pltpu.force_tpu_interpret_mode(params):
      yield
  except BaseException:
    pltpu.reset_tpu_interpret_mode_state()
    raise
  # From JAX 0.12 on it raises by itself, before it only prints.
  if "RACE DETECTED" in said.getvalue():
    raise RuntimeError(said.getvalue())


def why_no_interpreted_gpu() -> str | None:
  return None if hasattr(plgpu, "InterpretGPUParams") else "JAX interprets kernels for GPUs from 0.11 on"


@contextlib.contextmanager
def interpreted_gpu(*, detect_races: bool) -> Iterator[None]:
  """Kernels for GPUs that are traced here run in JAX's interpreter of a GPU, whose threads are whole warpgroups.

  Raises:
    RuntimeError: two accesses to memory raced.
  """
  with plgpu.force_gpu_interpret_mode(plgpu.InterpretGPUParams(detect_races=detect_races)):
    yield
