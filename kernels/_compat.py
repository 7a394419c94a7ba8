"""The only place that knows where JAX 0.10.2, 0.11 and 0.12 differ."""

import contextlib
import io
from collections.abc import Iterator

from jax.experimental.pallas import tpu as pltpu


@contextlib.contextmanager
def interpreted_tpu() -> Iterator[None]:
  """Kernels for TPUs that are traced here run in JAX's interpreter of a TPU, which needs none.

  Raises:
    RuntimeError: two accesses to memory raced.
  """
  said = io.StringIO()
  params = pltpu.InterpretParams(detect_races=True)
  with contextlib.redirect_stdout(said), pltpu.force_tpu_interpret_mode(params):
    yield
  # JAX 0.12 raises by itself, before it only prints.
  if "RACE DETECTED" in said.getvalue():
    raise RuntimeError(said.getvalue())
