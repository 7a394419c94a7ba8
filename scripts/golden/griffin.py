"""The recurrent block and the local attention of Griffin by google-deepmind/recurrentgemma, its PyTorch half."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from scripts.golden.recipe import TORCH, Recipe, drawn, under, with_parameters, with_torch_gradients


def rglru(official: dict[str, Any]) -> dict[str, np.ndarray]:
  """Runs two documents in a row from an empty state, with the state at the end; and tokens from another state."""
  import torch

  official["layers"] = SimpleNamespace(RGLRU=official["RGLRU"], Conv1D=official["Conv1D"])
  rng = np.random.default_rng(0)
  b, t, d, e, w = 2, 15, 4, 6, 4
  module = official["RecurrentBlock"](d, num_heads=2, lru_width=e, conv1d_temporal_width=w)
  inputs = drawn(module, rng) | {"x": rng.standard_normal((b, t, d))}
  position = torch.arange(t).expand(b, t).clone()
  position[1, 6:] = torch.arange(t - 6)  # a document starts there

  def from_empty(x, **parameters):
    y, state = with_parameters(module, parameters, lambda: module(x, position))
    return y, state.rg_lru_state, state.conv1d_state

  def from_state(x, h, taps, **parameters):
    def steps():
      state, outputs = official["RecurrentBlockCache"](h, taps), []
      for token in x.split(1, dim=1):
        y, state = module(token, torch.ones(b, 1, dtype=torch.int64), state)
        outputs.append(y)
      return torch.cat(outputs, dim=1), state.rg_lru_state, state.conv1d_state

    return with_parameters(module, parameters, steps)

  entries = under("empty", with_torch_gradients(from_empty, inputs, rng))
  inputs |= {"h": rng.standard_normal((b, e)), "taps": rng.standard_normal((b, w - 1, e))}
  return entries | under("state", with_torch_gradients(from_state, inputs, rng))


def local_attention(official: dict[str, Any]) -> dict[str, np.ndarray]:
  """Runs two documents in a row at once; and the first tokens at once, the others one by one from the cache."""
  import torch

  rng = np.random.default_rng(0)
  b, t, d, prompt = 2, 17, 16, 9
  module = official["LocalAttentionBlock"](d, num_heads=2, window_size=4)
  inputs = drawn(module, rng) | {"x": rng.standard_normal((b, t, d))}
  position = torch.arange(t).expand(b, t).clone()
  position[1, 6:] = torch.arange(t - 6)  # a document starts there

  def run(x, **parameters):
    @torch.no_grad()  # the cache is written in place
    def steps():
      y, cache = module(x[:, :prompt], position[:, :prompt])
      outputs = [y]
      for i in range(prompt, t):
        y, cache = module(x[:, i : i + 1], position[:, i : i + 1], cache)
        outputs.append(y)
      return torch.cat(outputs, dim=1)

    at_once = lambda: module(x, position, return_cache=False)[0]
    return tuple(with_parameters(module, parameters, way) for way in (at_once, steps))

  return with_torch_gradients(run, inputs, rng)


MODULES = "recurrentgemma/torch/modules.py"
IMPORTS = (
  TORCH + "import einops\nfrom types import SimpleNamespace\nat = SimpleNamespace(typed=lambda function: function)\n"
)
RECIPES = {
  "rglru": Recipe(
    "google-deepmind/recurrentgemma",
    {
      "recurrentgemma/torch/layers.py": (
        *("_MAX_SQRT_GRADIENT", "BlockDiagonalLinear", "rnn_scan", "rnn_param_init", "SqrtBoundDerivative"),
        *("RGLRU", "Conv1D"),
      ),
      MODULES: ("RecurrentBlockCache", "gelu", "RecurrentBlock"),
    },
    IMPORTS,
    rglru,
  ),
  "local_attention": Recipe(
    "google-deepmind/recurrentgemma",
    {
      MODULES: (
        *("_MIN_LOGITS_VALUE", "_MAX_WAVELENGTH", "AttentionBlockCache", "_apply_rope", "_compute_causal_mask"),
        *("_compute_forward_pass_mask", "_compute_cache_mask", "_update_attention_cache", "_roll_tensor"),
        *("_right_pad_tensor", "_attention_cache_from_prompt", "LocalAttentionBlock"),
      )
    },
    IMPORTS,
    local_attention,
  ),
}
