"""S5 by lindermanlab/S5."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from scripts.golden.recipe import Recipe


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


RECIPES = {
  "s5": Recipe(
    "lindermanlab/S5",
    {"s5/ssm.py": ("discretize_zoh", "discretize_bilinear", "binary_operator", "apply_ssm")},
    "import jax\nimport jax.numpy as np",
    s5,
  )
}
