"""Mamba, Mamba-2 and Mamba-3 by state-spaces/mamba."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from scripts.golden.recipe import TORCH, Recipe, with_torch_gradients


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


RECIPES = {
  "selective_scan": Recipe(
    "state-spaces/mamba",
    {"mamba_ssm/ops/selective_scan_interface.py": ("selective_scan_ref",)},
    TORCH,
    selective_scan,
  ),
  "ssd": Recipe(
    "state-spaces/mamba", {"mamba_ssm/modules/ssd_minimal.py": ("segsum", "ssd_minimal_discrete")}, TORCH, ssd
  ),
}
