"""DSS by ag1988/dss."""

from typing import Any

import numpy as np

from scripts.golden.recipe import TORCH, Recipe, drawn, under, with_parameters, with_torch_gradients


def dss(official: dict[str, Any]) -> dict[str, np.ndarray]:
  """Runs the kernels "exp" and "softmax", of which the latter has a mode that grows, on a sequence of its length.

  With a time step each for real and imaginary parts.
  """
  entries: dict[str, np.ndarray] = {}
  h, n, t = 3, 4, 23
  for version in ("exp", "softmax"):
    rng = np.random.default_rng(0)
    module = official["DSSKernel"](h, N=n, version=version)
    inputs = drawn(module, rng) | {"W": rng.standard_normal((1, h, n, 2))}
    inputs["log_dt"] = np.log(rng.uniform(0.03, 0.3, (h, 2)))
    if version == "exp":
      inputs["Lambda_im"] = rng.uniform(1, 9, n)
    else:
      inputs["Lambda"] = np.stack([[-0.5, -1.2, 0.4, -0.1], rng.uniform(1, 9, n)], axis=1)

    def run(module=module, **parameters):
      return (with_parameters(module, parameters, lambda: module(t)[0][0]),)

    entries |= under(version, with_torch_gradients(run, inputs, rng))
  return entries


RECIPES = {
  "dss": Recipe(
    "ag1988/dss",
    {
      "src/models/sequence/ss/standalone/dss.py": (
        *("OptimModule", "_c2r", "_r2c", "reciprocal", "hippo_skew_evals", "DSSKernel"),
      )
    },
    TORCH + "from opt_einsum import contract as einsum\nclass DictConfig(dict):\n  __getattr__ = dict.__getitem__\n",
    dss,
    # of a mode that grows they take the largest exponent for a constant, but not in the sum they divide by: its
    # gradient is not that of the kernel they compute
    patches={"with torch.no_grad():": "if True:"},
  )
}
