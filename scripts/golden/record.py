"""Runs an official implementation on fixed random numbers and writes inputs, outputs and gradients to tests/golden/.

  python -m scripts.golden.record NAME --source CHECKOUT

NAME is one of NUMBERS, CHECKOUT a git clone of the repository in its entry; torch and einops must be installed for
those that use torch. Of the official files only the functions and classes named here are executed, since what they
import (compiled kernels, training code) is mostly not to be had on a CPU. Gradients are those of sum(weights * output).
"""

import argparse
import ast
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "golden"
LIBRARIES = ("numpy", "torch", "einops", "jax")


class Recipe(NamedTuple):
  repository: str
  file: str
  names: tuple[str, ...]  # what of the file is executed
  imports: str  # in place of the file's own
  numbers: Callable[[Mapping[str, Any]], dict[str, np.ndarray]]


TORCH = (
  "import math, torch\nimport torch.nn as nn\nimport torch.nn.functional as F\nfrom einops import rearrange, repeat"
)


def selective_scan(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Mamba's scan with real and with complex A, two groups of B and C; steps go through softplus there."""
  rng = np.random.default_rng(0)
  found: dict[str, np.ndarray] = {}
  b, t, e, n, g = 2, 21, 4, 3, 2
  for kind in ("real", "complex"):
    pairs = 2 if kind == "complex" else 1
    A = -rng.uniform(0.5, 4, (e, n)) + (1j * rng.uniform(-6, 6, (e, n)) if kind == "complex" else 0)
    given = {
      "x": rng.standard_normal((b, e, t)),
      "dt": rng.uniform(0.01, 0.5, (b, e, t)),
      "A": A,
      "B": rng.standard_normal((b, g, n, t * pairs)),
      "C": rng.standard_normal((b, g, n, t * pairs)),
    }
    run = lambda x, dt, A, B, C: official["selective_scan_ref"](x, dt, A, B, C, return_last_state=True)
    found |= {f"{kind}/{name}": value for name, value in with_torch_gradients(run, given, rng).items()}
  return found


def ssd(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Mamba-2's minimal chunked form, from a state that is not zero."""
  rng = np.random.default_rng(0)
  b, t, h, k, p = 2, 24, 3, 4, 5
  given = {
    "v": rng.standard_normal((b, t, h, p)),
    "log_a": -rng.uniform(0.01, 1.0, (b, t, h)),
    "k": rng.standard_normal((b, t, h, k)),
    "q": rng.standard_normal((b, t, h, k)),
    "S": rng.standard_normal((b, 1, h, p, k)),
  }
  run = lambda v, log_a, k, q, S: official["ssd_minimal_discrete"](v, log_a, k, q, 8, S)
  return with_torch_gradients(run, given, rng)


def s4d_kernel(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """S4D-Lin's kernel under zero-order hold, at spread-out parameters."""
  import torch

  rng = np.random.default_rng(0)
  h, n = 3, 4
  given = {
    "log_dt": np.log(rng.uniform(1e-3, 1e-1, h)),
    "log_A_real": np.log(rng.uniform(0.2, 2, (h, n))),
    "A_imag": rng.uniform(0, 20, (h, n)),
    "C": rng.standard_normal((h, n, 2)),
  }

  def run(**tensors):
    module = official["S4DKernel"](h, N=2 * n)
    return (torch.func.functional_call(module, tensors, (50,)),)

  return with_torch_gradients(run, given, rng)


def s5(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The discretised system applied to a sequence, conjugate pairs stored once, for both rules of discretisation."""
  import jax
  import jax.numpy as jnp

  rng = np.random.default_rng(0)
  found: dict[str, np.ndarray] = {}
  t, d, n = 19, 3, 4
  given = {
    "lam_re": -rng.uniform(0.1, 2, n),
    "lam_im": rng.uniform(-6, 6, n),
    "B_re": rng.standard_normal((n, d)),
    "B_im": rng.standard_normal((n, d)),
    "C_re": rng.standard_normal((d, n)),
    "C_im": rng.standard_normal((d, n)),
    "log_dt": np.log(rng.uniform(1e-2, 0.5, n)),
    "x": rng.standard_normal((t, d)),
  }
  given = {name: value.astype(np.float32) for name, value in given.items()}
  weights = rng.standard_normal((t, d)).astype(np.float32)
  for disc in ("zoh", "bilinear"):

    def run(p, rule=official[f"discretize_{disc}"]):
      A, B = rule(p["lam_re"] + 1j * p["lam_im"], p["B_re"] + 1j * p["B_im"], jnp.exp(p["log_dt"]))
      return official["apply_ssm"](A, B, p["C_re"] + 1j * p["C_im"], p["x"], True, False)

    gradients = jax.grad(lambda p: jnp.sum(weights * run(p)))(given)
    found |= {f"{disc}/in/{name}": value for name, value in given.items()}
    found |= {f"{disc}/grad/{name}": np.asarray(value) for name, value in gradients.items()}
    found |= {f"{disc}/out/0": np.asarray(run(given)), f"{disc}/weights": weights}
  return found


def with_torch_gradients(run: Callable, given: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict:
  """Inputs, outputs, and the gradients of sum(weights * first output), in single precision."""
  import torch

  single = lambda z: z.astype(np.complex64 if np.iscomplexobj(z) else np.float32)
  given = {name: single(value) for name, value in given.items()}
  tensors = {name: torch.tensor(value, requires_grad=True) for name, value in given.items()}
  outputs = run(**tensors)
  weights = single(rng.standard_normal(outputs[0].shape))
  (outputs[0] * torch.tensor(weights)).sum().backward()
  found = {f"in/{name}": value for name, value in given.items()}
  # torch's gradient of a complex number is the conjugate of JAX's
  found |= {f"grad/{name}": tensor.grad.numpy().conj() for name, tensor in tensors.items()}
  found |= {f"out/{i}": value.detach().resolve_conj().numpy() for i, value in enumerate(outputs)}
  return found | {"weights": weights}


NUMBERS = {
  "selective_scan": Recipe(
    "state-spaces/mamba",
    "mamba_ssm/ops/selective_scan_interface.py",
    ("selective_scan_ref",),
    TORCH,
    selective_scan,
  ),
  "ssd": Recipe(
    "state-spaces/mamba", "mamba_ssm/modules/ssd_minimal.py", ("segsum", "ssd_minimal_discrete"), TORCH, ssd
  ),
  "s4d_kernel": Recipe("state-spaces/s4", "models/s4/s4d.py", ("S4DKernel",), TORCH, s4d_kernel),
  "s5": Recipe(
    "lindermanlab/S5",
    "s5/ssm.py",
    ("discretize_zoh", "discretize_bilinear", "binary_operator", "apply_ssm"),
    "import jax\nimport jax.numpy as np",
    s5,
  ),
}


def main() -> None:
  """Writes tests/golden/NAME.npz, whose entry `about` says in JSON where the numbers come from."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("name", choices=sorted(NUMBERS))
  parser.add_argument("--source", type=Path, required=True, help="git clone of the official repository")
  args = parser.parse_args()
  recipe = NUMBERS[args.name]
  git = lambda *command: (
    subprocess.run(["git", "-C", str(args.source), *command], check=True, capture_output=True, text=True).stdout
  )
  numbers = recipe.numbers(execute(git("show", f"HEAD:{recipe.file}"), recipe))
  about = {
    "repository": recipe.repository,
    "commit": git("rev-parse", "HEAD").strip(),
    "file": recipe.file,
    "executed": recipe.names,
    "date": time.strftime("%Y-%m-%d"),
    "versions": {name: _version(name) for name in LIBRARIES},
  }
  entries: dict[str, Any] = {"about": np.array(json.dumps(about))} | numbers
  np.savez_compressed(FOLDER / f"{args.name}.npz", **entries)
  print(json.dumps(about))


def execute(text: str, recipe: Recipe) -> dict[str, Any]:
  """The namespace in which the recipe's functions of an official file have been defined.

  Raises:
    ValueError: the file has no such function or class any more.
  """
  nodes = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
  if missing := [name for name in recipe.names if name not in nodes]:
    raise ValueError(f"{recipe.file} of {recipe.repository} has no {missing}; it has {sorted(nodes)}")
  namespace: dict[str, Any] = {}
  exec(recipe.imports, namespace)
  exec(compile(ast.Module([nodes[name] for name in recipe.names], []), recipe.file, "exec"), namespace)
  return namespace


def _version(name: str) -> str | None:
  try:
    return version(name)
  except PackageNotFoundError:
    return None


if __name__ == "__main__":
  main()
