"""A language model as programs that run without this code base: StableHLO by jax.export, weights as safetensors.

A folder holds

  prefill.bin            (weights, state, tokens `b t`, lengths `b`) -> (logits `b v` after the last token, state)
  step.bin               (weights, state, tokens `b`) -> (logits `b v`, state)
  weights.safetensors    the arrays of `weights`, in the order of export.json
  state.safetensors      those of the state before any token
  export.json            the order of both, and the sizes

`weights` and the state are tuples of arrays. `jax.export.deserialize(bytearray).call(…)` runs a program, on the kinds
of devices that it was made for.
"""

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import export
from safetensors.flax import save_file

import ending
from kernels import dispatch
from mistake import Mistake

FACTS = "export.json"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def write(
  folder: Path,
  model: nn.Module,
  variables: Mapping[str, Any],
  *,
  batch: int = 1,
  prompt: int = 256,
  max_len: int = 1024,
  platforms: Sequence[str] = ("cpu",),
) -> None:
  """Writes the folder.

  Args:
    batch: sequences that go on together.
    prompt: tokens of one call of prefill; `lengths` says how many of them count, and a longer text takes several calls.
    max_len: tokens that a state which grows has room for.
    platforms: kinds of devices that the programs run on.
  Raises:
    Mistake: the model has no state, a size is below 1, a platform is none, or flatbuffers is not installed.
  """
  for name, value in (("batch", batch), ("prompt", prompt), ("max_len", max_len)):
    if value < 1:
      raise Mistake(f"--{name}={value}; give at least 1")
  if unknown := [platform for platform in platforms if platform not in PLATFORMS]:
    raise Mistake(f"--platforms: no {unknown[0]!r}; choose from {', '.join(PLATFORMS)}")
  if importlib.util.find_spec("flatbuffers") is None:
    raise Mistake("JAX writes programs with the package flatbuffers, which ./dev setup installs")
  if model.STATE == "none":
    raise Mistake("the model reads whole rows at once: it has no prefill or step to export")
  weights = model.apart(variables)
  state = model.init_state(batch, max_len)
  prefill, step = programs(model, weights, state, batch=batch, prompt=prompt, platforms=platforms)
  folder.mkdir(parents=True, exist_ok=True)
  # which is written last: without it there is no whole export
  (folder / FACTS).unlink(missing_ok=True)
  for name, program in (("prefill.bin", prefill), ("step.bin", step)):
    with ending.unfinished(folder / name) as partial:
      partial.write_bytes(program.serialize())
  facts = {"batch": batch, "prompt": prompt, "max_len": max_len, "platforms": list(platforms)}
  for name, tree in (("weights", weights), ("state", state)):
    arrays = {_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    # no two names share memory
    with ending.unfinished(folder / f"{name}.safetensors") as partial:
      save_file({path: jnp.array(leaf) for path, leaf in arrays.items()}, partial)
    facts[name] = list(arrays)
  with ending.unfinished(folder / FACTS) as partial:
    partial.write_text(json.dumps(facts, indent=1) + "\n")


def _path(path: Any) -> str:
  return jax.tree_util.keystr(path, simple=True, separator="/")


def programs(
  model: nn.Module, weights: Any, state: Any, *, batch: int, prompt: int, platforms: Sequence[str]
) -> tuple[export.Exported, export.Exported]:
  """Returns prefill and step as exported programs, whose trees are flat tuples."""
  flat, kind = jax.tree.flatten(weights)
  states, state_kind = jax.tree.flatten(state)

  def prefill(weights: tuple[Any, ...], state: tuple[Any, ...], tokens: Any, lengths: Any) -> Any:
    before = jax.tree.unflatten(state_kind, state)
    logits, after = model.apply(jax.tree.unflatten(kind, weights), tokens, before, lengths=lengths, method="prefill")
    return logits, tuple(jax.tree.leaves(after))

  def step(weights: tuple[Any, ...], state: tuple[Any, ...], tokens: Any) -> Any:
    before = jax.tree.unflatten(state_kind, state)
    logits, after = model.apply(jax.tree.unflatten(kind, weights), tokens, before, method="step")
    return logits, tuple(jax.tree.leaves(after))

  shapes = lambda leaves: tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
  arguments = (shapes(flat), shapes(states))
  tokens = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32)
  # our own C++ kernels are not there where the programs run
  with dispatch.use("xla"):
    make = lambda function: export.export(jax.jit(function), platforms=tuple(platforms))
    return make(prefill)(*arguments, tokens(batch, prompt), tokens(batch)), make(step)(*arguments, tokens(batch))
