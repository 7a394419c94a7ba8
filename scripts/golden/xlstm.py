"""sLSTM by NX-AI/xlstm."""

from typing import Any

import numpy as np

from scripts.golden.recipe import TORCH, Recipe, drawn, with_parameters, with_torch_gradients


def slstm(official: dict[str, Any]) -> dict[str, np.ndarray]:
  """The layer in plain PyTorch, from a state that is not empty but for the short convolution."""
  rng = np.random.default_rng(0)
  official["slstm_pointwise_function_registry"] = {"slstm": official["slstm_forward_pointwise"]}
  b, t, d, heads = 2, 13, 8, 2
  config = official["sLSTMLayerConfig"](embedding_dim=d, num_heads=heads, backend="vanilla", dtype="float32")
  module = official["sLSTMLayer"](config)
  given = drawn(module, rng, spread=0.7) | {"x": rng.standard_normal((b, t, d))}
  h, c, m = rng.standard_normal((3, b, d))
  given["state"] = np.stack([h, c, rng.uniform(1, 2, (b, d)), m])

  def run(x, state, **parameters):
    call = lambda: module(x, slstm_state=state, return_last_state=True)
    y, last = with_parameters(module, parameters, call)
    return y, last["slstm_state"]

  return with_torch_gradients(run, given, rng)


COMPONENTS, BLOCK = "xlstm/components", "xlstm/blocks/slstm"
RECIPES = {
  "slstm": Recipe(
    "NX-AI/xlstm",
    {
      f"{COMPONENTS}/util.py": ("ParameterProxy",),
      f"{COMPONENTS}/init.py": ("small_init_init_",),
      f"{COMPONENTS}/ln.py": ("LayerNorm", "MultiHeadLayerNorm"),
      f"{COMPONENTS}/linear_headwise.py": ("LinearHeadwiseExpandConfig", "LinearHeadwiseExpand"),
      f"{COMPONENTS}/conv.py": ("CausalConv1dConfig", "CausalConv1d"),
      f"{BLOCK}/src/vanilla/slstm.py": ("slstm_forward_pointwise",),
      f"{BLOCK}/src/vanilla/__init__.py": ("slstm_forward",),
      f"{BLOCK}/cell.py": (
        *("DTYPE_DICT", "rnn_function_registry", "sLSTMCellConfig", "sLSTMCellBase", "sLSTMCell_vanilla", "sLSTMCell"),
      ),
      f"{BLOCK}/layer.py": ("sLSTMLayerConfig", "sLSTMLayer"),
    },
    TORCH + "import logging\nfrom dataclasses import dataclass, field\nfrom math import sqrt\n"
    "from torch.nn.functional import logsigmoid\nLOGGER = logging.getLogger()\n",
    slstm,
  )
}
