"""H3 and Hyena by HazyResearch/safari."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from scripts.golden.recipe import TORCH, Recipe, drawn, under, with_parameters, with_torch_gradients


def h3(official: dict[str, Any]) -> dict[str, np.ndarray]:
  """Runs the layer, in parallel and step by step: their steps are for heads of size 1.

  Its two kernels are made here, as they start with B inside C also where B is stored; what is trained holds it once.
  """
  import torch

  official["log_vandermonde"] = official["log_vandermonde_naive"]
  b, t, d, n = 2, 21, 4, 6
  entries: dict[str, np.ndarray] = {}
  for kind, head in (("elementwise", 1), ("outer", 2)):
    rng = np.random.default_rng(0)

    def kernel(H, mode="diag", rng=rng, **options):
      if mode == "shift":
        return official["SSKernelShift"](torch.ones(H, n), torch.ones(1, H, n))
      A = torch.tensor(-rng.uniform(0.3, 2, (H, n // 2)) + 1j * rng.uniform(0, 9, (H, n // 2)))
      log_dt = torch.tensor(np.log(rng.uniform(0.05, 0.5, H)))
      return official["SSKernelDiag"](A, torch.ones_like(A), torch.ones_like(A)[None], log_dt)

    official["SSKernel"] = kernel
    module = official["H3"](d, d_state=n, head_dim=head).float()
    start = {name: value.detach().numpy() for name, value in module.kernel.named_parameters() if name[0] in "liA"}
    inputs = drawn(module, rng) | {f"kernel.{name}": value for name, value in start.items()}
    inputs["x"] = rng.standard_normal((b, t, d))

    def run(x, module=module, head=head, **parameters):
      def steps():
        module.kernel._setup_step()
        states, outputs = (module.ssm_k_kernel.default_state(b), module.kernel.default_state(b)), []
        for token in x.split(1, dim=1):
          y, *states = module.step(token, *states)
          outputs.append(y)
        return torch.cat(outputs, dim=1)

      y = with_parameters(module, parameters, lambda: module(x))
      return (y, with_parameters(module, parameters, steps)) if head == 1 else (y,)

    entries |= under(kind, with_torch_gradients(run, inputs, rng))
  return entries


def hyena(official: dict[str, Any]) -> dict[str, np.ndarray]:
  """Runs the operator of order 3 on a sequence shorter than its filters; features of the lag stay as they are."""
  official["instantiate"] = lambda *args, **options: official["HyenaFilter"]
  official["registry"] = SimpleNamespace(layer=None)
  entries: dict[str, np.ndarray] = {}
  b, t, d = 2, 17, 4
  sizes = {"l_max": 24, "order": 3, "filter_order": 6, "emb_dim": 5, "shift": 0.1}
  for kind, outer in (("plain", False), ("outer_mixing", True)):
    rng = np.random.default_rng(0)
    module = official["HyenaOperator"](d, **sizes, lr_pos_emb=0.0, outer_mixing=outer)
    inputs = drawn(module, rng) | {"x": rng.standard_normal((b, t, d))}

    def run(x, module=module, **parameters):
      return (with_parameters(module, parameters, lambda: module(x)),)

    entries |= under(kind, with_torch_gradients(run, inputs, rng))
  return entries


SEQUENCE = "src/models/sequence"
RECIPES = {
  "h3": Recipe(
    "HazyResearch/safari",
    {
      "src/utils/train.py": ("OptimModule",),
      "src/ops/vandermonde.py": ("_conj", "log_vandermonde_naive", "log_vandermonde_transpose_naive"),
      f"{SEQUENCE}/ssm/ss_kernel_shift.py": ("SSKernelShift",),
      f"{SEQUENCE}/ssm/ss_kernel_diag.py": ("_c2r", "_r2c", "_resolve_conj", "SSKernelDiag"),
      f"{SEQUENCE}/h3.py": ("mul_sum", "H3"),
    },
    TORCH + "from opt_einsum import contract\nlog_vandermonde_fast = fftconv_func = None\n",
    h3,
    patches={"@torch.jit.script": ""},
  ),
  "hyena": Recipe(
    "HazyResearch/safari",
    {
      "src/utils/train.py": ("OptimModule",),
      "src/utils/config.py": ("auto_assign_attrs",),
      "src/models/nn/components.py": ("Activation",),
      f"{SEQUENCE}/hyena.py": (
        *("fftconv_ref", "Sin", "PositionalEmbedding", "ExponentialModulation", "HyenaFilter", "HyenaOperator"),
      ),
    },
    TORCH,
    hyena,
  ),
}
