"""NVIDIA's Mamba-2 hybrids, Nemotron-H and Nemotron 3: patterns as printed.

M is Mamba-2, * attention, - an MLP and E experts. Attention has no positions, and MLPs have squared ReLUs and no gates.
The number of parameters of 800m is nominal: it has 907 million, of which 524 million are in its two tables of 256,000
rows.

Source: Waleffe et al. 2024, arXiv:2406.07887, sec. 4 and app. (8b, and 800m for ablations), and NVIDIA/Megatron-LM,
examples/mamba; NVIDIA 2025, arXiv:2504.03624, table 1, and checkpoint nvidia/Nemotron-H-8B-Base-8K; configs of
nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B and -Super-120B-A12B, without the layers that predict a second token.
"""

from collections.abc import Mapping
from typing import Any

from flax.core import FrozenDict

from hybrids.recipes.recipe import Recipe, language_model


def model(
  *,
  width: int,
  pattern: str,
  heads: int,
  kv_heads: int,
  inner: int,
  ssm: Mapping[str, Any] = FrozenDict(),
  softmax: Mapping[str, Any] = FrozenDict(),
  mlp_bias: bool = False,
  experts: Mapping[str, Any] = FrozenDict(),
  norm_eps: float = 1e-5,
  tie: bool = False,
) -> dict[str, Any]:
  """Returns the sections of a model with one layer for each letter of the pattern.

  Args:
    ssm, softmax, experts: further fields of Mamba-2, of attention and of `moe`.
  """
  return language_model(
    width=width,
    pattern=pattern,
    letters={
      "M": dict(name="mamba2", groups=8, norm_eps=norm_eps) | dict(ssm),
      "*": dict(name="softmax", heads=heads, kv_heads=kv_heads) | dict(softmax),
      "-": dict(name="mlp", inner=inner, activation="relu2", bias=mlp_bias),
      "E": dict(name="moe", gated=False, activation="relu2", scores="sigmoid", selection_bias=True, **experts),
    },
    norm_eps=norm_eps,
    head=dict(tie=tie),
  )


BIG = "M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-"
SMALL = "M-M-M--M-*M-M-M-M--*M-M-M-M-*M--M-M-M-*M-M--M-M-"
NEMOTRON_8B = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"
NANO = "MEMEM*" + "EMEMEM*" * 4 + "EMEMEMEM*EMEMEMEME"
SUPER = "MEMEMEM*" + "EMEMEMEM*" * 2 + "EMEMEMEMEM*" * 4 + "EMEMEMEM*EMEMEMEME"
SPARSE: dict[str, Any] = dict(renormalize=True, renormalize_eps=1e-20, balance=0.0)
TOY: dict[str, Any] = dict(width=8, heads=2, kv_heads=1, inner=12, ssm=dict(state=2, head_size=4, groups=2))

RECIPES = {
  "nvidia_hybrid_800m": Recipe(
    model,
    dict(width=1024, pattern=SMALL, heads=16, kv_heads=8, inner=4096),
    800_000_000,
    within=0.15,
    vocab=256_000,
    length=4096,
  ),
  "nvidia_hybrid_8b": Recipe(
    model,
    dict(width=4096, pattern=BIG, heads=32, kv_heads=8, inner=16_384),
    8_660_000_000,
    within=0.01,
    vocab=256_000,
    length=4096,
  ),
  "nvidia_hybrid_toy": Recipe(model, dict(pattern="M-M*-", **TOY), vocab=256),
  "nemotron_h_8b": Recipe(
    model,
    dict(width=4096, pattern=NEMOTRON_8B, heads=32, kv_heads=8, softmax=dict(head_size=128), inner=21_504),
    8_100_852_736,
    vocab=131_072,
    length=8192,
  ),
  "nemotron_3_nano_30b": Recipe(
    model,
    dict(
      width=2688,
      pattern=NANO,
      heads=32,
      kv_heads=2,
      softmax=dict(head_size=128),
      inner=1856,
      ssm=dict(inner=4096, head_size=64),
      experts=dict(SPARSE, experts=128, top_k=6, inner=1856, shared=3712, scale=2.5),
    ),
    31_600_000_000,
    3_600_000_000,
    within=0.005,
    vocab=131_072,
    length=8192,
  ),
  "nemotron_3_super_120b": Recipe(
    model,
    dict(
      width=4096,
      pattern=SUPER,
      heads=32,
      kv_heads=2,
      softmax=dict(head_size=128),
      inner=2688,
      ssm=dict(inner=8192, head_size=64),
      experts=dict(SPARSE, experts=512, top_k=22, inner=2688, shared=5376, scale=5.0, latent=1024),
    ),
    120_000_000_000,
    12_000_000_000,
    within=0.02,
    vocab=131_072,
    length=8192,
  ),
  "nemotron_h_toy": Recipe(
    model,
    dict(pattern="M-M*ME", experts=dict(experts=4, inner=6, shared=8, latent=4, renormalize=True), **TOY),
    vocab=256,
  ),
}
