"""The fixtures of released models: folders with config.json, model.safetensors and the reference's numbers."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from interop import families, hf
from tests.sources import ROOT

SHARED, OWN = ROOT.parent / "shared" / "golden_hf", ROOT / "tests" / "golden" / "hf"
# families whose reference is itself further than that from double precision, and recorded no noise
TOLERANCE = {"qwen3_next": 2e-4, "rwkv": 5e-4}


def folders() -> list[Path]:
  """Every fixture that there is."""
  roots = [root for root in (SHARED, OWN) if root.is_dir()]
  return sorted((path.parent for root in roots for path in root.glob("*/config.json")), key=lambda path: path.name)


def marked(slow: bool = False, quick: tuple[str, ...] = ()) -> list:
  """The fixtures as pytest's parameters; those that are not quick may be slow tests."""
  found = []
  for path in folders():
    family = json.loads((path / "config.json").read_text())["model_type"]
    skip = [] if family in families.names() else [pytest.mark.skip(f"interop/families has no {family}.py yet")]
    found.append(pytest.param(path, id=path.name, marks=skip + [pytest.mark.slow] * (slow and path.name not in quick)))
  here = [] if SHARED.is_dir() else [pytest.param(None, id="shared", marks=pytest.mark.skip(f"there is no {SHARED}"))]
  return found + here


@functools.cache
def loaded(folder: Path):
  """The model, its variables, the config and the reference's numbers."""
  with np.load(folder / "reference.npz", allow_pickle=False) as file:
    return *hf.load(folder), dict(file)


def tolerance(config, reference) -> float:
  """How far logits may be from the reference: 1e-4, or 5 times its own distance from double precision."""
  return max(TOLERANCE.get(config["model_type"], 1e-4), 5 * float(reference.get("noise", 0)))
