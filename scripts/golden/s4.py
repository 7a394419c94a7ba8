"""S4, S4D, S4ND and LSSL by state-spaces/s4."""

import functools
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from scripts.golden.recipe import TORCH, Recipe, drawn, single, under, with_parameters, with_torch_gradients


def s4d_kernel(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs S4D-Lin's kernel under zero-order hold, at spread-out parameters."""
  import torch

  rng = np.random.default_rng(0)
  h, n = 3, 4
  inputs = {
    "log_dt": np.log(rng.uniform(1e-3, 1e-1, h)),
    "log_A_real": np.log(rng.uniform(0.2, 2, (h, n))),
    "A_imag": rng.uniform(0, 20, (h, n)),
    "C": rng.standard_normal((h, n, 2)),
  }

  def run(**tensors):
    module = official["S4DKernel"](h, N=2 * n)
    return (torch.func.functional_call(module, tensors, (50,)),)

  return with_torch_gradients(run, inputs, rng)


def s4(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs the layer without its output map, from a state: in parallel, its kernel, by steps; and its initial values.

  Theirs trains C (I - Abar^L), here made of C so that the gradients are those of C. In double precision: in single
  precision theirs differs from itself in double by 3e-7 with LegS, but with FouT, whose Re(lam) is -1e-4, by 8e-5 in
  the kernel and by as much as there is in the gradient of Re(lam).
  """
  import torch

  entries: dict[str, np.ndarray] = {}
  h, n, b, t = 3, 4, 2, 24
  for measure in ("legs", "fout"):
    rng = np.random.default_rng(0)
    # what of B is clipped hangs on the phase of an eigenvector
    lam, P, B, _ = official["nplr"](measure, 2 * n, dtype=torch.double, B_clip=None)
    entries |= {
      f"{measure}/start/lam": lam.numpy(),
      f"{measure}/start/P": P[0].numpy(),
      f"{measure}/start/B": B.numpy(),
    }
    layer = official["FFTConv"](h, l_max=t, activation=None, mode="s4", init=measure, d_state=2 * n).double()
    inputs = {f"kernel.{name}": value.detach().numpy() for name, value in layer.kernel.named_parameters()}
    inputs = {name: value + rng.normal(0, 0.1, value.shape) for name, value in inputs.items()}
    inputs |= {"kernel.inv_dt": np.log(rng.uniform(0.02, 0.3, (h, 1))), "D": rng.standard_normal((1, h))}
    inputs |= {"kernel.C": rng.standard_normal((1, h, n, 2)), "x": rng.standard_normal((b, h, t))}
    inputs |= {"state": rng.standard_normal((b, h, n, 2)) @ [1, 1j]}
    layer.kernel.l_kernel += t
    run = functools.partial(s4_modes, official, layer)
    entries |= under(measure, with_torch_gradients(run, inputs, rng, precision="float64"))
  return {name: single(value) for name, value in entries.items()}


def s4_modes(official: Mapping[str, Any], layer, *, x, state, **parameters) -> tuple:
  """Returns outputs and last state, the kernel, outputs and last state of steps, and the C of their parameters."""
  import torch

  def steps(state=state) -> tuple:
    layer.setup_step(mode="linear")
    layer.default_state(len(x))  # chooses the products of a step
    outputs = []
    for token in x.unbind(-1):
      y, state = layer.step(token, state)
      outputs.append(y)
    return torch.stack(outputs, dim=-1), state

  C = with_parameters(layer, parameters, lambda: cut(official, layer.kernel))
  call = functools.partial(with_parameters, layer, parameters | {"kernel.C": C})
  kernel = lambda: layer.kernel(L=x.shape[-1])[0][0]
  return *call(lambda: layer(x, state=state)), call(kernel), *call(steps), C


def cut(official: Mapping[str, Any], kernel) -> Any:
  """Returns C (I - Abar^L), which their kernel stores in the place of C, for the paper's parameters."""
  import torch

  A, _ = kernel._setup_state()
  C = official["_conj"](torch.view_as_complex(kernel.C))
  C = C - (C[..., None, :] @ official["power"](kernel.l_kernel.item(), A))[..., 0, :]
  return torch.view_as_real(C[..., : kernel.N])


def s4nd(official: dict[str, Any]) -> dict[str, np.ndarray]:
  """Runs the convolution and D: of diagonal state spaces on images and a video, of S4's on an image; none is a square.

  S4's in double precision, see `s4`.
  """
  entries: dict[str, np.ndarray] = {}
  b, d, n, sides = 2, 3, 4, (4, 6)
  for kind, options in S4ND.items():
    rng = np.random.default_rng(0)
    of_s4, dim = options["kernel"] == "s4", options.get("dim", 2)
    module = official["S4ND"](d, d_state=2 * n, **options)
    module = module.double() if of_s4 else module
    inputs = {name: value.detach().numpy() for name, value in module.named_parameters()}
    inputs = {name: value + rng.normal(0, 0.1, value.shape) for name, value in inputs.items()}
    axes = range(dim)
    for axis, size in zip(axes, (2, *sides)[-dim:]):
      inputs[f"kernel.{axis}.inv_dt"] = np.log(rng.uniform(0.05, 0.3, (d, 1)))
      inputs[f"kernel.{axis}.C"] = rng.standard_normal(inputs[f"kernel.{axis}.C"].shape)
      if of_s4:
        module.kernel[axis].l_kernel += size
    inputs |= {"D": rng.standard_normal((1, d)), "x": rng.standard_normal((b, d, *(2, *sides)[-dim:]))}

    def run(x, module=module, axes=axes, of_s4=of_s4, **parameters):
      if of_s4:
        C = with_parameters(module, parameters, lambda: [cut(official, module.kernel[axis]) for axis in axes])
        parameters |= {f"kernel.{axis}.C": C[axis] for axis in axes}
      return (with_parameters(module, parameters, lambda: module(x)[0]),)

    entries |= under(kind, with_torch_gradients(run, inputs, rng, precision="float64" if of_s4 else "float32"))
  return entries


def lssl(official: dict[str, Any]) -> dict[str, np.ndarray]:
  """Runs the layer with an A and B that are any matrices, one for all channels."""
  import torch

  rng = np.random.default_rng(0)
  b, t, d, n = 2, 19, 3, 4
  start = lambda measure, size: (-torch.eye(size), torch.ones(size, 1))
  official["hippo"] = SimpleNamespace(transition=start)
  official["transition"] = SimpleNamespace(ManualAdaptiveTransition=official["ManualAdaptiveTransition"])
  module = official["Platypus"](d, n, learn=3, dt={"learn": True})
  inputs = drawn(module, rng) | {"x": rng.standard_normal((b, t, d))}
  inputs |= {"transition.a": rng.normal(-np.eye(n), 0.5), "log_dt": np.log(rng.uniform(0.1, 0.5, d))}

  def run(x, **parameters):
    return (with_parameters(module, parameters, lambda: module(x)[0]),)

  return with_torch_gradients(run, inputs, rng)


# variants: their arguments
S4ND: dict[str, dict[str, Any]] = {
  "both_ways": {"kernel": "diag", "init": "diag-lin", "trank": 2},
  "one_way": {"kernel": "diag", "init": "diag-lin", "bidirectional": False, "bandlimit": 0.5},
  "dplr": {"kernel": "s4", "init": "legs", "bidirectional": True},
  "video": {"kernel": "diag", "init": "diag-lin", "dim": 3, "contract_version": 1},
}
KERNELS = (
  *("contract", "_conj", "_c2r", "_r2c", "_resolve_conj", "cauchy_naive", "log_vandermonde_naive", "Activation"),
  *("power", "transition", "rank_correction", "nplr", "dplr", "ssm", "combinations", "combination"),
  *("inv_transform", "param_transform", "Kernel", "SSMKernel", "SSMKernelDiag", "SSMKernelDPLR", "kernel_registry"),
)
IMPORTS = (
  TORCH + "from collections import defaultdict\nimport logging\nlog = logging.getLogger()\n"
  "has_cuda_extension = has_pykeops = False\n"
)
# so that what is made of the parameters for a step has gradients
WITH_GRADIENTS = {"@torch.no_grad()\n    def _setup_linear": "def _setup_linear"}
RECIPES = {
  "s4d_kernel": Recipe("state-spaces/s4", {"models/s4/s4d.py": ("S4DKernel",)}, TORCH, s4d_kernel),
  "s4": Recipe(
    "state-spaces/s4",
    {"models/s4/s4.py": (*KERNELS, "FFTConv")},
    IMPORTS,
    s4,
    patches=WITH_GRADIENTS,
  ),
  "s4nd": Recipe(
    "state-spaces/s4",
    {"models/s4/s4.py": KERNELS, "src/models/sequence/modules/s4nd.py": ("multiple_axis_slice", "S4ND")},
    IMPORTS + "from einops import reduce\nSequenceModule = nn.Module\n",
    s4nd,
    patches=WITH_GRADIENTS,
  ),
  "lssl": Recipe(
    "state-spaces/s4",
    {
      "src/models/functional/toeplitz.py": (
        *("TriangularToeplitzMultFast", "triangular_toeplitz_multiply_fast", "causal_convolution"),
      ),
      "src/models/functional/krylov.py": ("krylov",),
      "src/models/hippo/transition.py": ("AdaptiveTransition", "ManualAdaptiveTransition"),
      "src/models/nn/activation.py": ("Activation",),
      "src/models/sequence/modules/lssl.py": ("linear_system_from_krylov", "Platypus"),
    },
    TORCH + "SequenceModule = nn.Module\nclass DictConfig(dict):\n  __getattr__ = dict.__getitem__\n",
    lssl,
  ),
}
