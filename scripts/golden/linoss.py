"""LinOSS by tk-rusch/linoss; D-LinOSS as camail-official/discretax has it, whose numbers are not its authors' own."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from scripts.golden.recipe import Recipe, under, with_jax_gradients


def linoss(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs both discretisations, without the skip and what follows."""
  import jax

  inputs = _inputs(np.random.default_rng(0))
  entries: dict[str, np.ndarray] = {}
  for disc in ("im", "imex"):

    def run(p, apply=official[f"apply_linoss_{disc}"]):
      B, C = (p[f"{name}_re"] + 1j * p[f"{name}_im"] for name in "BC")
      return (apply(p["A"], B, C, p["x"], jax.nn.sigmoid(p["logit_dt"])),)

    entries |= under(disc, with_jax_gradients(run, inputs, np.random.default_rng(1)))
  return entries


def damped_linoss(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs the damped form where A is in its range, and reads it out here."""
  import jax

  def run(p):
    B, C = (p[f"{name}_re"] + 1j * p[f"{name}_im"] for name in "BC")
    q = official["_apply_damped_linoss_imex"](p["A"], p["G"], B, p["x"], jax.nn.sigmoid(p["logit_dt"]))
    return ((q @ C.T).real,)

  rng = np.random.default_rng(0)
  inputs = _inputs(rng)
  return with_jax_gradients(run, inputs | {"G": rng.uniform(0, 1, inputs["A"].shape)}, rng)


def _inputs(rng: np.random.Generator) -> dict[str, np.ndarray]:
  t, d, n = 19, 3, 5
  shapes = {"B_re": (n, d), "B_im": (n, d), "C_re": (d, n), "C_im": (d, n), "x": (t, d), "logit_dt": (n,)}
  return {name: rng.standard_normal(shape) for name, shape in shapes.items()} | {"A": rng.uniform(0.5, 2, n)}


RECIPES = {
  "linoss": Recipe(
    "tk-rusch/linoss",
    {"models/LinOSS.py": ("binary_operator", "apply_linoss_im", "apply_linoss_imex")},
    "import jax\nimport jax.numpy as jnp",
    linoss,
  ),
  "damped_linoss": Recipe(
    "camail-official/discretax",
    {"src/discretax/sequence_mixers/linoss.py": ("_binary_operator", "_apply_damped_linoss_imex")},
    "import jax\nimport jax.numpy as jnp",
    damped_linoss,
  ),
}
