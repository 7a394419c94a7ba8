"""State spaces of `discretax` and `linax` (JAX, Equinox; Python 3.12 or newer): the layers alone, as defined there."""

import functools
import importlib

import jax

from scripts.benchmarks.case import Case, Missing, Timed, compiled, gradients
from scripts.peers.own_process import own_process


def cases(peer: str, group: str, size: tuple[int, int, int], *, state: int) -> list[Case]:
  """Returns the cases of one layer, e.g. "discretax S5", at a size (batch, length, width), both modes."""
  kwargs = {"peer": peer, "size": size, "state": state}
  make = lambda mode: functools.partial(own_process, "scripts.peers.jax_layers:layer", mode=mode, **kwargs)
  return [Case(f"{group}, {mode}", peer, make(mode)) for mode in ("forward", "forward+backward")]


def layer(*, peer: str, mode: str, size: tuple[int, int, int], state: int) -> Timed:
  """Compiles the layer, vmapped over the batch."""
  library, name = peer.split()
  try:
    import equinox

    module = importlib.import_module(f"{library}.sequence_mixers.{name.lower()}")
  except ImportError as e:
    raise Missing(f"not installed here ({e})") from e
  if library == "linax":
    config = getattr(module, f"{name}SequenceMixerConfig")(state_dim=state)
    mixer = config.build(in_features=size[-1], key=jax.random.key(0))
  else:
    mixer = getattr(module, f"{name}SequenceMixer")(size[-1], key=jax.random.key(0), state_dim=state)
  params, static = equinox.partition(mixer, equinox.is_inexact_array)
  x = jax.random.normal(jax.random.key(1), size)

  def run(params, x):
    return jax.vmap(lambda x: equinox.combine(params, static)(x, key=jax.random.key(2)))(x)

  return (compiled if mode == "forward" else gradients)(run, params, x)
