"""Runs an official implementation on fixed random numbers and writes inputs, outputs and gradients to tests/golden/.

  python -m scripts.golden.record NAME --source CHECKOUT

NAME is one of NUMBERS, CHECKOUT a git clone of the repository in its entry (layers of an installed library go without);
torch and einops must be installed for those that use torch. Of the official files only the functions and classes that a
recipe names are executed, since what they import (compiled kernels, training code) is mostly not to be had on a CPU.
Gradients are those of sum(weights * output).
"""

import argparse
import importlib
import json
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from scripts.golden.recipe import FOLDER, execute

LIBRARIES = ("numpy", "torch", "einops", "jax", "flax", "transformers")
FAMILIES = (
  *("attention", "dss", "efficient_attention", "griffin", "hugging_face", "linear_attention", "linoss", "liquid_s4"),
  *("long_range_arena", "mamba", "matrix_state", "mega", "rnn", "s4", "s5", "safari", "sgconv", "ssm_2d", "titans"),
  "xlstm",
)
MODULES = [importlib.import_module(f"scripts.golden.{family}") for family in FAMILIES]
NUMBERS = {name: recipe for module in MODULES for name, recipe in module.RECIPES.items()}


def main() -> None:
  """Writes tests/golden/NAME.npz, whose entry `about` says in JSON where the numbers come from."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("name", choices=sorted(NUMBERS))
  parser.add_argument("--source", type=Path, help="git clone of the official repository")
  args = parser.parse_args()
  recipe = NUMBERS[args.name]
  if recipe.files and args.source is None:
    parser.error(f"{args.name} is of {recipe.repository}: give a git clone of it as --source")
  git = lambda *command: (
    subprocess.run(["git", "-C", str(args.source), *command], check=True, capture_output=True, text=True).stdout
  )
  numbers = recipe.numbers(execute({file: git("show", f"HEAD:{file}") for file in recipe.files}, recipe))
  about = {
    "repository": recipe.repository,
    "commit": git("rev-parse", "HEAD").strip() if recipe.files else None,
    "executed": recipe.files,
    "patched": recipe.patches,
    "date": time.strftime("%Y-%m-%d"),
    "versions": {name: _version(name) for name in LIBRARIES},
  }
  entries: dict[str, Any] = {"about": np.array(json.dumps(about))} | numbers
  np.savez_compressed(FOLDER / f"{args.name}.npz", **entries)
  print(json.dumps(about))


def _version(name: str) -> str | None:
  try:
    return version(name)
  except PackageNotFoundError:
    return None


if __name__ == "__main__":
  main()
