"""Titans' neural memory by lucidrains: no code of the authors is public, and this one's options include the paper's.

It needs tensordict, assoc-scan and einx.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from scripts.golden.recipe import Recipe, drawn, under, with_parameters, with_torch_gradients

IMPORTS = """
import math, torch, einx
import torch.nn as nn
import torch.nn.functional as F
from collections import namedtuple
from functools import partial
from itertools import zip_longest
from torch import Tensor, cat, is_tensor, stack, tensor
from torch.func import functional_call, grad, vmap
from torch.nn import Linear, Module, Parameter, ParameterList
from tensordict import TensorDict
from assoc_scan import AssocScan
from einops import einsum, pack, rearrange, reduce, repeat, unpack
from einops.layers.torch import Rearrange
"""
MODELS = ("MemoryMLP",)
MEMORY = (
  *("LinearNoBias", "NeuralMemState", "exists", "default", "identity", "xnor", "divisible_by", "safe_cat"),
  *("is_empty_tensor", "dict_get_value_shapes", "rearrange_dict_values", "repeat_dict_values", "pair"),
  *("round_down_multiple", "round_up_multiple", "pad_at_dim", "pack_one_with_inverse", "Sequential"),
  *("MultiheadRMSNorm", "AveragePool", "default_adaptive_step_transform", "default_loss_fn", "NeuralMemory"),
)
B, T, D = 2, 23, 4


def memory(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs a linear memory in chunks of 5 tokens and a deep one in chunks of 4: outputs and all gradients.

  Their `batch_size` is how long gradients are taken at the same weights, their `chunk_size` how many tokens share one
  momentum and decay. The loss is a mean over channels unless another is given; keys have any length.
  """
  entries: dict[str, np.ndarray] = {}
  for name, depth, batch in (("linear", 1, 5), ("deep", 2, 4)):
    rng = np.random.default_rng(depth)
    module = official["NeuralMemory"](
      D,
      chunk_size=1,
      batch_size=batch,
      model=official["MemoryMLP"](D, depth, 1.5),
      store_memory_loss_fn=lambda got, want: (got - want).square().sum(-1),
      default_step_transform_max_lr=0.1,
      pre_rmsnorm=False,
      mem_model_norm_add_residual=False,
    )
    run = lambda x, module=module, **p: (with_parameters(module, p, lambda: module(x)[0]),)
    # the memory that is given is only the initial value of what is learned
    inputs = {key: value for key, value in drawn(module, rng, 0.4).items() if not key.startswith("memory_model.")}
    entries |= under(name, with_torch_gradients(run, {"x": rng.standard_normal((B, T, D)), **inputs}, rng))
  return entries


RECIPES = {
  "titans": Recipe(
    "lucidrains/titans-pytorch",
    {"titans_pytorch/memory_models.py": MODELS, "titans_pytorch/neural_memory.py": MEMORY},
    IMPORTS,
    memory,
    patches={"F.gelu(x)": "F.silu(x)"},
  )
}
