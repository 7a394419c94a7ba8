"""Liquid-S4 by raminmh/liquid-s4."""

from typing import Any

import numpy as np

from scripts.golden.recipe import TORCH, Recipe, drawn, with_parameters, with_torch_gradients


def liquid_s4(official: dict[str, Any]) -> dict[str, np.ndarray]:
  """Runs the state space and D with the correction "polyb" of degree 3, of all combinations, which reads the future.

  The correction is made of the parameters of the kernel, by an object in place of the one that holds the kernel: theirs
  makes it of tensors that are none, and keep the values from before training as soon as the model is moved to a device.
  """
  import torch

  rng = np.random.default_rng(0)
  official["log_vandermonde"] = official["log_vandermonde_naive"]
  b, t, d, n = 2, 12, 3, 4

  class Kernel(torch.nn.Module):
    mode = "diag"
    B = property(lambda self: torch.view_as_complex(self.kernel.B))
    C = property(lambda self: torch.view_as_complex(self.kernel.C))
    w = property(lambda self: self.kernel._A())
    log_dt = property(lambda self: self.kernel.log_dt)

    def __init__(self, H, **options):
      super().__init__()
      A = torch.full((H, n), -0.5 + 1j)
      self.kernel = official["SSKernelDiag"](A, torch.ones_like(A), torch.ones_like(A)[None], torch.zeros(H))

    def forward(self, **options):
      return self.kernel(**options)

  official["SSKernel"] = Kernel
  module = official["S4"](d, liquid_kernel="polyb", liquid_degree=3, linear=True)
  inputs = drawn(module, rng) | {"x": rng.standard_normal((b, d, t))}
  inputs |= {
    "kernel.kernel.log_dt": np.log(rng.uniform(0.1, 0.5, d)),
    "kernel.kernel.A_imag": rng.uniform(0, 9, (d, n)),
  }
  del inputs["kernel.kernel.A"]  # a second copy, which nothing reads

  def run(x, **parameters):
    return (with_parameters(module, parameters, lambda: module(x)[0]),)

  return with_torch_gradients(run, inputs, rng)


RECIPES = {
  "liquid_s4": Recipe(
    "raminmh/liquid-s4",
    {
      "src/models/functional/vandermonde.py": ("log_vandermonde_naive",),
      "src/models/sequence/ss/kernel.py": (*("_conj", "_c2r", "_r2c", "_resolve_conj", "OptimModule", "SSKernelDiag"),),
      "src/models/sequence/ss/s4.py": ("S4",),
    },
    TORCH + "import itertools, logging\nfrom opt_einsum import contract\n",
    liquid_s4,
    patches={"        import src.utils.train\n": "", "src.utils.train.get_logger(__name__)": "logging.getLogger()"},
  )
}
