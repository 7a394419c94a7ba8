"""Falcon-H1: Mamba-2 beside attention in every layer, behind one norm, then a gated MLP, with fixed factors everywhere.

Departs: the factors are 1 in the sizes below, as they change no shape; a checkpoint's config has its own. The widths of
the MLPs, which are not in the table, are those of the configs of 1.5B, 3B and 7B, and in the others those that give the
published numbers.

Source: Zuo et al. 2025, arXiv:2507.22448, table 6; checkpoints tiiuae/Falcon-H1-0.5B-Base … Falcon-H1-34B-Base.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flax.core import FrozenDict

from hybrids.recipes.recipe import Recipe, language_model


def model(
  *,
  width: int,
  depth: int,
  inner: int,
  heads: int,
  kv_heads: int,
  head_size: int,
  ssm: Mapping[str, Any],
  softmax: Mapping[str, Any] = FrozenDict(),
  mlp_bias: bool = False,
  embed_scale: float = 1.0,
  head_scale: float = 1.0,
  attention_scales: Sequence[float] = (1.0, 1.0),
  ssm_scales: Sequence[float] = (1.0, 1.0),
  mlp_scale: float = 1.0,
  norm_eps: float = 1e-5,
  tie: bool = False,
) -> dict[str, Any]:
  """Returns the sections of `depth` layers, two letters each.

  Args:
    ssm, softmax: further fields of Mamba-2 and of attention.
    attention_scales, ssm_scales: of the input and of the output of each.
  """
  sizes = dict(heads=heads, kv_heads=kv_heads, head_size=head_size)
  attention = dict(name="softmax", position="rope", theta=1e11, **sizes) | dict(softmax)
  mamba2 = dict(name="mamba2", norm="none", norm_eps=norm_eps) | dict(ssm)
  scaled = lambda mixer, scales: dict(mixer=mixer, input_scale=scales[0], scale=scales[1])
  both = [scaled(mamba2, ssm_scales), scaled(attention, attention_scales)]
  return language_model(
    width=width,
    pattern="p-",
    depth=2 * depth,
    letters={
      "p": dict(name="parallel", branches=both),
      "-": dict(mixer=dict(name="gated_mlp", inner=inner, bias=mlp_bias), scale=mlp_scale),
    },
    norm_eps=norm_eps,
    embed=dict(scale=embed_scale),
    head=dict(tie=tie, scale=head_scale),
  )


def size(
  width: int, depth: int, inner: int, attention: tuple[int, int, int], ssm: tuple[int, int, int], groups: int = 1
) -> dict[str, Any]:
  """Returns the arguments of a size: heads, heads of keys, their size; heads of Mamba-2, their size, its state."""
  heads, kv_heads, head_size = attention
  ssm_heads, ssm_head_size, state = ssm
  return dict(
    width=width,
    depth=depth,
    inner=inner,
    heads=heads,
    kv_heads=kv_heads,
    head_size=head_size,
    ssm=dict(inner=ssm_heads * ssm_head_size, head_size=ssm_head_size, state=state, groups=groups),
  )


WIDE: dict[str, Any] = dict(vocab=65_536, length=4096)

RECIPES = {
  "falcon_h1_0.5b": Recipe(
    model, size(1024, 36, 2048, (8, 2, 64), (24, 64, 128)), 521_000_000, within=0.002, vocab=32_784
  ),
  "falcon_h1_1.5b": Recipe(
    model, size(2048, 24, 4608, (8, 2, 128), (48, 64, 256)), 1_550_000_000, within=0.005, **WIDE
  ),
  "falcon_h1_1.5b_deep": Recipe(
    model, size(1280, 66, 3072, (6, 2, 128), (24, 64, 256)), 1_550_000_000, within=0.005, **WIDE
  ),
  "falcon_h1_3b": Recipe(
    model, size(2560, 32, 6144, (10, 2, 128), (32, 128, 256)), 3_150_000_000, within=0.005, **WIDE
  ),
  "falcon_h1_7b": Recipe(
    model, size(3072, 44, 12_288, (12, 2, 128), (24, 128, 256)), 7_590_000_000, within=0.002, vocab=130_048
  ),
  "falcon_h1_34b": Recipe(
    model,
    size(5120, 72, 21_504, (20, 4, 128), (32, 128, 256), groups=2),
    33_600_000_000,
    within=0.01,
    vocab=261_120,
  ),
  "falcon_h1_toy": Recipe(model, size(8, 2, 12, (2, 1, 4), (2, 4, 2)), vocab=256),
}
