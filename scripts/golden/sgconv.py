"""SGConv by ctlllll/SGConv."""

from typing import Any

import numpy as np

from scripts.golden.recipe import TORCH, Recipe, drawn, under, with_parameters, with_torch_gradients

# their modes, and ours
MODES: dict[str, dict[str, Any]] = {
  "cat_randn": {"join": "cat"},
  "sum_randn_nearest": {"join": "sum", "interpolation": "nearest"},
  "cat_randn_learnable": {"join": "cat", "decay": "learned", "decay_min": 0.1, "decay_max": 1.0},
}


def sgconv(official: dict[str, Any]) -> dict[str, np.ndarray]:
  """Runs the convolution and D, after a call with other parameters, whose kernel's norm stays: entry "norm"."""
  import torch

  rng = np.random.default_rng(0)
  entries: dict[str, np.ndarray] = {}
  b, t, d, taps = 2, 29, 3, 4
  for mode, ours in MODES.items():
    options = {name: value for name, value in ours.items() if name.startswith("decay_")}
    module = official["GConv"](d, l_max=32, mode=mode, linear=True, kernel_dim=taps, **options)
    first = {name: torch.tensor(value).float() for name, value in drawn(module, rng).items()}
    module.load_state_dict(first, strict=False)
    module(torch.zeros(b, d, t))
    inputs = drawn(module, rng) | {"x": rng.standard_normal((b, d, t))}

    def run(x, module=module, **parameters):
      return (with_parameters(module, parameters, lambda: module(x)[0]),)

    entries |= under(mode, with_torch_gradients(run, inputs, rng))
    entries |= under(f"{mode}/first", {name: value.numpy() for name, value in first.items()})
    entries[f"{mode}/norm"] = module.kernel_norm.numpy()
  return entries


RECIPES = {
  "sgconv": Recipe(
    "ctlllll/SGConv", {"gconv_standalone.py": ("GConv",)}, TORCH + "from opt_einsum import contract\n", sgconv
  )
}
