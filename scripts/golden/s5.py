"""S5 by lindermanlab/S5, Event-SSM by its authors, and LRU by NicolasZucchet/minimal-LRU (there is none by its own)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from scripts.golden.recipe import Recipe, single, under, with_jax_gradients


def s5(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Applies the discretised system to a sequence, for both rules of discretisation, and in both directions.

  Conjugate pairs are stored once.
  """
  import jax.numpy as jnp

  rng = np.random.default_rng(0)
  entries: dict[str, np.ndarray] = {}
  t, d, n = 19, 3, 4
  inputs = {
    "lam_re": -rng.uniform(0.1, 2, n),
    "lam_im": rng.uniform(-6, 6, n),
    "B_re": rng.standard_normal((n, d)),
    "B_im": rng.standard_normal((n, d)),
    "C_re": rng.standard_normal((d, n)),
    "C_im": rng.standard_normal((d, n)),
    "log_dt": np.log(rng.uniform(1e-2, 0.5, n)),
    "x": rng.standard_normal((t, d)),
  }
  two_C = inputs | {name: rng.standard_normal((d, 2 * n)) for name in ("C_re", "C_im")}
  variants = {"zoh": ("zoh", False), "bilinear": ("bilinear", False), "both_ways": ("zoh", True)}
  for kind, (disc, both) in variants.items():

    def run(p, rule=official[f"discretize_{disc}"], both=both):
      A, B = rule(p["lam_re"] + 1j * p["lam_im"], p["B_re"] + 1j * p["B_im"], jnp.exp(p["log_dt"]))
      return (official["apply_ssm"](A, B, p["C_re"] + 1j * p["C_im"], p["x"], True, both),)

    entries |= under(kind, with_jax_gradients(run, two_C if both else inputs, np.random.default_rng(1)))
  return entries


def event_ssm(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs the state space on events with gaps, for the three rules; and the three ways to pool events."""
  rng = np.random.default_rng(0)
  entries: dict[str, np.ndarray] = {}
  t, d, n = 17, 3, 4
  inputs = {
    "Lambda_re": -rng.uniform(0.1, 2, n),
    "Lambda_im": rng.uniform(-6, 6, n),
    "B": rng.standard_normal((n, d, 2)),
    "C": rng.standard_normal((d, n, 2)),
    "D": rng.standard_normal(d),
    "log_step": np.log(rng.uniform(1e-2, 0.5, (n, 1))),
    "x": rng.standard_normal((t, d)),
    "dt": rng.exponential(size=t),
  }
  options = {"P": 2 * n, "block_size": 2 * n, "C_init": "lecun_normal", "dt_min": 1e-3, "dt_max": 1e-1}
  for disc in ("zoh", "dirac", "async"):
    module = official["S5SSM"](d, d, discretization=disc, **options)

    def run(p, module=module):
      params = {name: value for name, value in p.items() if name not in ("x", "dt")}
      return (module.apply({"params": params}, p["x"], p["dt"]),)

    entries |= under(disc, with_jax_gradients(run, inputs, np.random.default_rng(1)))
  for mode in ("last", "avgpool", "timepool"):
    pool = official["EventPooling"](stride=3, mode=mode)
    for name, value in zip(("x", "dt"), pool.apply({}, single(inputs["x"]), single(inputs["dt"]))):
      entries[f"pool/{mode}/{name}"] = np.asarray(value)
  return entries


def lru(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs the state space without what follows it."""
  rng = np.random.default_rng(0)
  t, d, n = 19, 3, 5
  module = official["LRU"](d_hidden=n, d_model=d)
  inputs = {"x": rng.standard_normal((t, d)), "D": rng.standard_normal(d)}
  inputs |= {"nu_log": np.log(rng.uniform(0.01, 1, n)), "theta_log": np.log(rng.uniform(0.1, 6, n))}
  inputs |= {"gamma_log": rng.standard_normal(n)}
  inputs |= {f"{name}_{part}": rng.standard_normal((n, d)) for name in "BC" for part in ("re", "im")}
  inputs |= {name: value.T for name, value in inputs.items() if name.startswith("C_")}

  def run(p):
    return (module.apply({"params": {name: value for name, value in p.items() if name != "x"}}, p["x"]),)

  return with_jax_gradients(run, inputs, rng)


RECIPES = {
  "s5": Recipe(
    "lindermanlab/S5",
    {"s5/ssm.py": ("discretize_zoh", "discretize_bilinear", "binary_operator", "apply_ssm")},
    "import jax\nimport jax.numpy as np",
    s5,
  ),
  "event_ssm": Recipe(
    "Efficient-Scalable-Machine-Learning/event-ssm",
    {
      "event_ssm/ssm_init.py": (
        *("make_HiPPO", "make_NPLR_HiPPO", "make_DPLR_HiPPO", "log_step_initializer", "init_log_steps"),
        *("init_VinvB", "init_CV"),
      ),
      "event_ssm/layers.py": ("EventPooling",),
      "event_ssm/ssm.py": (
        *("discretize_zoh", "discretize_dirac", "discretize_async", "binary_operator", "apply_ssm", "S5SSM"),
      ),
    },
    "import jax\nimport jax.numpy as np\nfrom flax import linen as nn\nfrom jax import random\n"
    "from jax.numpy.linalg import eigh\n"
    "from jax.nn.initializers import glorot_normal, lecun_normal, normal\nfrom jax.scipy.linalg import block_diag\n",
    event_ssm,
  ),
  "lru": Recipe(
    "NicolasZucchet/minimal-LRU",
    {
      "lru/model.py": (
        *("parallel_scan", "binary_operator_diag", "matrix_init", "nu_init", "theta_init", "gamma_log_init", "LRU"),
      )
    },
    "from functools import partial\nimport jax\nimport jax.numpy as jnp\nfrom flax import linen as nn\n",
    lru,
  ),
}
