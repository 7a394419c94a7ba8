"""Executes parts of the files of an official repository, by themselves, on numbers drawn here."""

import __future__

import ast
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mistake import Mistake

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "golden"
TORCH = (
  "import math, numpy as np, torch\nimport torch.nn as nn\nimport torch.nn.functional as F\n"
  "from einops import rearrange, repeat\nfrom typing import *\nfrom torch import Tensor\n"
)


class Recipe(NamedTuple):
  """Names the functions, classes and constants to execute of each file of `repository`, in this order."""

  repository: str
  files: Mapping[str, tuple[str, ...]]
  imports: str  # in place of the files' own
  numbers: Callable[[dict[str, Any]], dict[str, np.ndarray]]  # of what was executed
  library: str | None = None  # installed, where there are no files
  patches: Mapping[str, str] = {}  # text to its replacement, in memory: what libraries have renamed, and devices


def execute(texts: Mapping[str, str], recipe: Recipe) -> dict[str, Any]:
  """Returns the namespace in which the recipe's parts of the files, whose texts these are, have been defined.

  Raises:
    ValueError: a file has no such function, class or constant any more, or no file has the text of a patch.
  """
  if missing := [old for old in recipe.patches if not any(old in text for text in texts.values())]:
    raise Mistake(f"no file of {recipe.repository} in the recipe has the text {missing}")
  namespace: dict[str, Any] = {}
  exec(recipe.imports, namespace)
  for file, names in recipe.files.items():
    text = texts[file]
    for old, new in recipe.patches.items():
      text = text.replace(old, new)
    nodes = {name: node for node in ast.parse(text).body for name in _defines(node)}
    if missing := [name for name in names if name not in nodes]:
      raise Mistake(f"{file} of {recipe.repository} has no {missing}; it has {sorted(nodes)}")
    module = ast.Module([nodes[name] for name in names], [])
    exec(compile(module, file, "exec", __future__.annotations.compiler_flag), namespace)  # types are not looked up
  return namespace


def single(z: np.ndarray) -> np.ndarray:
  """Casts to single precision."""
  return z.astype(np.complex64 if np.iscomplexobj(z) else np.float32)


def with_torch_gradients(
  run: Callable, inputs: Mapping[str, np.ndarray], rng: np.random.Generator, *, precision: str = "float32"
) -> dict[str, np.ndarray]:
  """Returns inputs, outputs, and the gradients of sum(weights * first output).

  All are stored in single precision. "float64" computes in it, from the same inputs: for code whose own rounding in
  single precision exceeds what the tests allow.
  """
  import torch

  wide = precision == "float64"
  inputs = {name: single(value) for name, value in inputs.items()}
  tensor = lambda z: torch.tensor(z).to(torch.promote_types(torch.tensor(z).dtype, getattr(torch, precision)))
  tensors = {name: tensor(value).requires_grad_() for name, value in inputs.items()}
  outputs = run(**tensors)
  assert not wide or outputs[0].dtype in (torch.float64, torch.complex128), (
    "it computes in single precision all the same"
  )
  weights = single(rng.standard_normal(outputs[0].shape))
  (outputs[0] * torch.tensor(weights)).sum().backward()
  entries = {f"in/{name}": value for name, value in inputs.items()}
  # torch's gradient of a complex number is the conjugate of JAX's
  entries |= {f"grad/{name}": z.grad.numpy().conj() for name, z in tensors.items() if z.grad is not None}
  entries |= {f"out/{i}": value.detach().resolve_conj().numpy() for i, value in enumerate(outputs)}
  return {name: single(value) for name, value in entries.items()} | {"weights": weights}


def with_jax_gradients(
  run: Callable, inputs: Mapping[str, np.ndarray], rng: np.random.Generator
) -> dict[str, np.ndarray]:
  """Does what `with_torch_gradients` does, for code in JAX: `run(inputs)` returns the outputs."""
  import jax
  import jax.numpy as jnp

  inputs = {name: single(value) for name, value in inputs.items()}
  outputs = run(inputs)
  weights = single(rng.standard_normal(outputs[0].shape))
  gradients = jax.grad(lambda inputs: jnp.sum(weights * run(inputs)[0]))(inputs)
  entries = {f"in/{name}": value for name, value in inputs.items()}
  entries |= {f"grad/{name}": np.asarray(value) for name, value in gradients.items()}
  return entries | {f"out/{i}": np.asarray(value) for i, value in enumerate(outputs)} | {"weights": weights}


def drawn(module: Any, rng: np.random.Generator, spread: float = 0.3) -> dict[str, np.ndarray]:
  """Draws parameters of a torch module: around 1 for those that start there, around 0 for all others."""
  start = {name: value.detach().numpy() for name, value in module.named_parameters()}
  return {name: (value == 1) + rng.normal(0, spread, value.shape) for name, value in sorted(start.items())}


def with_parameters(module: Any, parameters: Mapping[str, Any], run: Callable) -> Any:
  """Calls `run()` while these tensors are the parameters of a torch module, or some of them."""
  import torch

  class Caller(torch.nn.Module):
    def __init__(self):
      super().__init__()
      self.module = module

    def forward(self):
      return run()

  return torch.func.functional_call(Caller(), {f"module.{name}": value for name, value in parameters.items()})


def under(part: str, entries: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the entries, with `part` before their names."""
  return {f"{part}/{name}": value for name, value in entries.items()}


def _defines(node: ast.stmt) -> list[str]:
  """Returns the names that a statement of a module binds."""
  if isinstance(node, ast.FunctionDef | ast.ClassDef):
    return [node.name]
  if isinstance(node, ast.If):
    return [name for part in node.body for name in _defines(part)]
  targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
  return [target.id for target in targets if isinstance(target, ast.Name)]
