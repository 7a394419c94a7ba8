"""The two-dimensional state space by ethanbar11/ssm_2d."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from scripts.golden.recipe import TORCH, Recipe, drawn, under, with_parameters, with_torch_gradients

# variants: their arguments
SSM2D: dict[str, dict[str, Any]] = {
  "real": {"complex_ssm": False, "directions_amount": 4},
  "complex": {"complex_ssm": True, "directions_amount": 2},
}


def ssm2d(official: dict[str, Any]) -> dict[str, np.ndarray]:
  """Runs the layer on an image of 4 by 4; the table of its kernel's terms is made anew and not kept in a file."""

  def make_table(self, force):
    self.initialize_matrices()
    self.set_final_coeffs_matrix()
    self.initialize_whole_as_one()

  official["CoeffCalculator"].calc_coeffs_lazy = make_table
  entries: dict[str, np.ndarray] = {}
  b, d, n, side = 2, 3, 2, 4
  for kind, options in SSM2D.items():
    rng = np.random.default_rng(0)
    args = SimpleNamespace(ndim=n, n_ssm=d, normalize=False, use_residual_inside_ssm=True, **options)
    module = official["TwoDimensionalSSM"](d, L=side**2, args=args)
    inputs = drawn(module, rng, spread=1.0) | {"x": rng.standard_normal((side**2, b, d))}

    def run(x, module=module, **parameters):
      return (with_parameters(module, parameters, lambda: module(x)),)

    entries |= under(kind, with_torch_gradients(run, inputs, rng))
  return entries


RECIPES = {
  "ssm2d": Recipe(
    "ethanbar11/ssm_2d",
    {
      "models/mega/ssm_coefficient.py": ("generate_initial_matrix", "CoeffCalculator"),
      "models/mega/two_d_ssm.py": ("_r2c", "TwoDimensionalSSM"),
    },
    "from sympy import *\n" + TORCH + "from einops import einsum\n",
    ssm2d,
    patches={".to('cuda')": "", ".cuda()": ""},
  )
}
