"""The only place of the library that knows where JAX 0.10.2, 0.11 and 0.12 differ."""

import inspect

from jax.experimental.pallas import mosaic_gpu as plgpu


def load(ref, layout):
  """Loads an array from memory into registers of a layout on a GPU, by whichever instructions can do it."""
  index = ((),) if "idx" in inspect.signature(plgpu.load).parameters else ()
  return plgpu.load(ref, *index, layout=layout, optimized=False)


def store(ref, z):
  """Writes in a kernel for GPUs, by whatever instructions do it."""
  if hasattr(plgpu, "store"):
    plgpu.store(ref, z, optimized=False)
  else:
    ref[...] = z


def transposed(ref):
  """Returns a matrix in a memory of a GPU, read with rows and columns exchanged."""
  return ref.transpose((1, 0)) if hasattr(ref, "transpose") else plgpu.transpose_ref(ref, (1, 0))
