"""sLSTM and mLSTM by NX-AI/xlstm; xLSTM 7B's mLSTM by the library transformers."""

from typing import Any

import numpy as np

from scripts.golden.recipe import TORCH, Recipe, drawn, with_parameters, with_torch_gradients


def slstm(official: dict[str, Any]) -> dict[str, np.ndarray]:
  """Runs the layer in plain PyTorch, from a state that is not empty but for the short convolution."""
  rng = np.random.default_rng(0)
  official["slstm_pointwise_function_registry"] = {"slstm": official["slstm_forward_pointwise"]}
  b, t, d, heads = 2, 13, 8, 2
  config = official["sLSTMLayerConfig"](embedding_dim=d, num_heads=heads, backend="vanilla", dtype="float32")
  module = official["sLSTMLayer"](config)
  inputs = drawn(module, rng, spread=0.7) | {"x": rng.standard_normal((b, t, d))}
  h, c, m = rng.standard_normal((3, b, d))
  inputs["state"] = np.stack([h, c, rng.uniform(1, 2, (b, d)), m])

  def run(x, state, **parameters):
    call = lambda: module(x, slstm_state=state, return_last_state=True)
    y, last = with_parameters(module, parameters, call)
    return y, last["slstm_state"]

  return with_torch_gradients(run, inputs, rng)


def mlstm(official: dict[str, Any]) -> dict[str, np.ndarray]:
  """Runs the layer in parallel, and step by step.

  In double precision: next to a divisor that is nearly 0 single precision does not know gradients to 1e-5.
  """
  import torch

  rng = np.random.default_rng(1)
  b, t, d = 2, 21, 8
  config = official["mLSTMLayerConfig"](num_heads=2, embedding_dim=d, context_length=t)
  config._inner_embedding_dim = 2 * d
  module = official["mLSTMLayer"](config).double()
  inputs = drawn(module, rng) | {"x": rng.standard_normal((b, t, d))}

  def steps(x):
    state: dict[str, Any] = {"mlstm_state": None, "conv_state": None}
    outputs = []
    for i in range(t):
      y, state = module.step(x[:, i : i + 1], **state)
      outputs.append(y)
    return torch.cat(outputs, dim=1)

  def run(x, **parameters):
    return with_parameters(module, parameters, lambda: (module(x), steps(x)))

  return with_torch_gradients(run, inputs, rng, precision="float64")


def mlstm_large(official: dict[str, Any]) -> dict[str, np.ndarray]:
  """Runs the layer of xLSTM 7B: in chunks of eight tokens, and as for inference, a chunk and then steps.

  In double precision, as `mlstm`, but for the state between steps; gates are capped at 2, which bends them.
  """
  del official
  from transformers.models.xlstm.configuration_xlstm import xLSTMConfig
  from transformers.models.xlstm.modeling_xlstm import xLSTMLayer

  rng = np.random.default_rng(2)
  b, d = 2, 8
  options = {"hidden_size": d, "num_heads": 2, "num_hidden_layers": 1, "chunk_size": 8, "gate_soft_cap": 2.0}
  options |= {"norm_reduction_force_float32": False}
  modules = {mode: xLSTMLayer(xLSTMConfig(**options, mode=mode)).double() for mode in ("train", "inference")}
  inputs = drawn(modules["train"], rng, spread=0.7) | {"x": rng.standard_normal((b, 24, d))}

  def run(x, **parameters):
    with_mode = lambda mode, x: with_parameters(modules[mode], parameters, lambda: modules[mode](x)[0])
    return with_mode("train", x), with_mode("inference", x[:, :13])

  return with_torch_gradients(run, inputs, rng, precision="float64")


COMPONENTS, BLOCK = "xlstm/components", "xlstm/blocks/slstm"
MLSTM = "xlstm/blocks/mlstm"
RECIPES = {
  "mlstm": Recipe(
    "NX-AI/xlstm",
    {
      "xlstm/utils.py": ("UpProjConfigMixin",),
      f"{COMPONENTS}/init.py": ("bias_linspace_init_", "small_init_init_", "wang_init_"),
      f"{COMPONENTS}/ln.py": ("LayerNorm", "MultiHeadLayerNorm"),
      f"{COMPONENTS}/linear_headwise.py": ("LinearHeadwiseExpandConfig", "LinearHeadwiseExpand"),
      f"{COMPONENTS}/conv.py": ("conv1d_step", "CausalConv1dConfig", "CausalConv1d"),
      f"{MLSTM}/backends.py": ("parallel_stabilized_simple", "recurrent_step_stabilized_simple"),
      f"{MLSTM}/cell.py": ("mLSTMCellConfig", "mLSTMCell"),
      f"{MLSTM}/layer.py": ("mLSTMLayerConfig", "mLSTMLayer"),
    },
    TORCH + "from dataclasses import dataclass, field\nfrom math import sqrt\n",
    mlstm,
  ),
  "mlstm_large": Recipe("huggingface/transformers", {}, "", mlstm_large, library="transformers"),
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
  ),
}
