"""Mamba, Mamba-2 and Mamba-3 by state-spaces/mamba."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from scripts.golden.recipe import TORCH, Recipe, drawn, under, with_parameters, with_torch_gradients


def selective_scan(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs Mamba's scan with real and with complex A, two groups of B and C; steps go through softplus there."""
  rng = np.random.default_rng(0)
  entries: dict[str, np.ndarray] = {}
  b, t, e, n, g = 2, 21, 4, 3, 2
  for kind in ("real", "complex"):
    pairs = 2 if kind == "complex" else 1
    A = -rng.uniform(0.5, 4, (e, n)) + (1j * rng.uniform(-6, 6, (e, n)) if kind == "complex" else 0)
    inputs = {
      "x": rng.standard_normal((b, e, t)),
      "dt": rng.uniform(0.01, 0.5, (b, e, t)),
      "A": A,
      "B": rng.standard_normal((b, g, n, t * pairs)),
      "C": rng.standard_normal((b, g, n, t * pairs)),
    }
    run = lambda x, dt, A, B, C: official["selective_scan_ref"](x, dt, A, B, C, return_last_state=True)
    entries |= {f"{kind}/{name}": value for name, value in with_torch_gradients(run, inputs, rng).items()}
  return entries


def ssd(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs Mamba-2's minimal chunked form, from a state that is not zero."""
  rng = np.random.default_rng(0)
  b, t, h, k, p = 2, 24, 3, 4, 5
  inputs = {
    "v": rng.standard_normal((b, t, h, p)),
    "log_a": -rng.uniform(0.01, 1.0, (b, t, h)),
    "k": rng.standard_normal((b, t, h, k)),
    "q": rng.standard_normal((b, t, h, k)),
    "S": rng.standard_normal((b, 1, h, p, k)),
  }
  run = lambda v, log_a, k, q, S: official["ssd_minimal_discrete"](v, log_a, k, q, 8, S)
  return with_torch_gradients(run, inputs, rng)


def mamba3(official: dict[str, Any]) -> dict[str, np.ndarray]:
  """Runs the authors' layer, with their step-by-step references as its kernels, from a state that is not zero."""
  official["RMSNormGated"], official["rmsnorm_fn"] = official["RMSNorm"], official["rms_norm_ref"]
  entries: dict[str, np.ndarray] = {}
  b, t, d, h, n, p = 1, 11, 4, 4, 8, 2
  for kind, options in MAMBA3.items():
    rng = np.random.default_rng(0)
    r = options.get("mimo_rank")
    state: dict[str, Any] = {}
    last: list[Any] = []

    def kernel(chunk_size, cu_seqlens, r=r, state=state, last=last, **inputs):
      reference = official["mamba3_siso_step_ref" if r is None else "mamba3_MIMO_step_ref"]
      u = state["u"] if r is None else state["u"][:, :, None] * inputs["MIMO_V"]
      if r is not None:
        inputs |= {"MIMO_O": inputs.pop("MIMO_Out"), "fused_norm": inputs.pop("fuse_pregate_headwise_rms_norm")}
        weight = inputs.pop("outproj_norm_weight")
        inputs["outproj_norm_weight"] = None if weight is None else weight.reshape(h, p)
      inputs = {name: value for name, value in inputs.items() if name in reference.__code__.co_varnames}
      y, states = reference(**inputs | {"Input_States": (state["angle"], state["S"], state["k"], u)})
      last[:] = states[:3]
      return y

    official["mamba3_siso_combined"] = official["mamba3_mimo_combined"] = kernel
    module = official["Mamba3"](d, d_state=n, headdim=p, **options)
    inputs = drawn(module, rng) | {"x": rng.standard_normal((b, t, d))}
    inputs |= {
      "state.angle": rng.uniform(0, 6, (b, h, module.num_rope_angles)),
      "state.S": rng.standard_normal((b, h, p, n)),
    }
    inputs["state.k"] = rng.standard_normal((b, h, n) if r is None else (b, h, r, n))
    inputs["state.u"] = rng.standard_normal((b, h, p))

    def run(x, module=module, state=state, last=last, **inputs):
      state |= {name[6:]: inputs.pop(name) for name in list(inputs) if name.startswith("state.")}
      return with_parameters(module, inputs, lambda: module(x)), *last

    entries |= under(kind, with_torch_gradients(run, inputs, rng))
  return entries


def mamba2(official: dict[str, Any]) -> dict[str, np.ndarray]:
  """Runs the authors' layer, with their references in place of its kernels."""

  def kernel(*inputs, seq_idx, cu_seqlens, return_final_states, return_varlen_states, **options):
    return official["ssd_chunk_scan_combined_ref"](*inputs, **options)

  official |= {"RMSNormGated": official["RMSNorm"], "rmsnorm_fn": official["rms_norm_ref"]}
  official["mamba_chunk_scan_combined"] = kernel
  entries: dict[str, np.ndarray] = {}
  b, t, d, n, p = 2, 16, 4, 3, 2
  for kind, options in MAMBA2.items():
    rng = np.random.default_rng(0)
    module = official["Mamba2"](d, d_state=n, headdim=p, chunk_size=8, use_mem_eff_path=False, **options)
    inputs = drawn(module, rng) | {"x": rng.standard_normal((b, t, d))}

    def run(x, module=module, **parameters):
      return (with_parameters(module, parameters, lambda: module(x)),)

    entries |= under(kind, with_torch_gradients(run, inputs, rng))
  return entries


# variants of the layers: their arguments
MAMBA2: dict[str, dict[str, Any]] = {
  "gate_first": {"ngroups": 2},
  "norm_first": {"norm_before_gate": True, "D_has_hdim": True, "bias": True, "conv_bias": False},
  "none": {"rmsnorm": False},
  "beside": {"d_ssm": 4},
}
MAMBA3: dict[str, dict[str, Any]] = {
  "siso": {},
  "siso_norm": {"ngroups": 2, "is_outproj_norm": True, "rope_fraction": 1.0},
  "mimo": {"ngroups": 2, "is_mimo": True, "mimo_rank": 3},
  "mimo_norm": {"is_mimo": True, "mimo_rank": 2, "is_outproj_norm": True},
}

RECIPES = {
  "selective_scan": Recipe(
    "state-spaces/mamba",
    {"mamba_ssm/ops/selective_scan_interface.py": ("selective_scan_ref",)},
    TORCH,
    selective_scan,
  ),
  "ssd": Recipe(
    "state-spaces/mamba", {"mamba_ssm/modules/ssd_minimal.py": ("segsum", "ssd_minimal_discrete")}, TORCH, ssd
  ),
  "mamba2": Recipe(
    "state-spaces/mamba",
    {
      "mamba_ssm/ops/triton/layernorm_gated.py": ("rms_norm_ref", "RMSNorm"),
      "mamba_ssm/ops/triton/ssd_chunk_state.py": ("chunk_state_ref",),
      "mamba_ssm/ops/triton/ssd_state_passing.py": ("state_passing_ref",),
      "mamba_ssm/ops/triton/ssd_chunk_scan.py": ("chunk_scan_ref",),
      "mamba_ssm/ops/triton/ssd_combined.py": ("ssd_chunk_scan_combined_ref",),
      "mamba_ssm/modules/mamba2.py": ("Mamba2",),
    },
    TORCH + "causal_conv1d_fn = None\nclass PyTorchModelHubMixin:\n  pass\n",
    mamba2,
  ),
  "mamba3": Recipe(
    "state-spaces/mamba",
    {
      "mamba_ssm/ops/triton/layernorm_gated.py": ("rms_norm_ref", "RMSNorm"),
      "tests/ops/triton/test_mamba3_siso.py": ("mamba3_siso_step_ref",),
      "tests/ops/tilelang/test_mamba3_mimo.py": ("mamba3_MIMO_step_ref",),
      "mamba_ssm/modules/mamba3.py": ("heavy_tail_activation", "Mamba3"),
    },
    TORCH,
    mamba3,
  ),
}
