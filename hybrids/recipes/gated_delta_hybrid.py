"""Gated DeltaNet and its hybrids with attention over a window, each layer followed by a gated MLP.

GatedDeltaNet-H1 has a layer of either by turns; three delta nets for each attention is what Qwen3-Next and OLMo Hybrid
have, without experts here. The repository names its 0.4B loosely; these sizes and 3:1 have the numbers counted here.
Departs: the authors' map for β has a bias, one number a head, which ours has not.

Source: Yang, Kautz & Hatamizadeh 2025, arXiv:2412.06464, sec. 4; NVlabs/GatedDeltaNet, lit_gpt/config.py at 5ddd1e4.
"""

from typing import Any

from hybrids.recipes.recipe import Recipe, language_model


def model(
  *,
  width: int,
  depth: int,
  inner: int,
  heads: int,
  delta_heads: int,
  key_size: int,
  expand_v: float = 2.0,
  window: int | None = 2048,
  pattern: str = "d-a-",
  norm_eps: float = 1e-5,
  tie: bool = True,
) -> dict[str, Any]:
  """Returns the sections of `depth` layers by a pattern of d, delta nets, and a, attention, each with an MLP behind."""
  return language_model(
    width=width,
    pattern=pattern,
    depth=2 * depth,
    letters={
      "d": dict(name="gated_delta_net", heads=delta_heads, head_size=key_size, expand_v=expand_v),
      "a": dict(name="softmax", heads=heads, window=window, position="rope"),
      "-": dict(name="gated_mlp", inner=inner),
    },
    norm_eps=norm_eps,
    head=dict(tie=tie),
  )


H1: dict[str, Any] = dict(width=2304, depth=18, inner=6144, heads=18, delta_heads=9, key_size=192)
TOY: dict[str, Any] = dict(width=8, inner=12, heads=2, delta_heads=2, key_size=2, window=3)
NOMINAL: dict[str, Any] = dict(vocab=32_000, length=4096)

RECIPES = {
  "gated_delta_0.4b": Recipe(
    model,
    dict(width=1536, depth=11, inner=6144, heads=12, delta_heads=9, key_size=128, pattern="d-"),
    516_837_830,
    **NOMINAL,
  ),
  "gated_delta_hybrid_0.4b_h1": Recipe(
    model,
    dict(width=1536, depth=12, inner=6144, heads=12, delta_heads=9, key_size=128),
    530_764_908,
    **NOMINAL,
  ),
  "gated_delta_hybrid_1.3b_h1": Recipe(model, H1, 1_300_000_000, within=0.02, **NOMINAL),
  "gated_delta_hybrid_1.3b": Recipe(model, dict(H1, pattern="d-d-d-a-", window=None), 1_370_040_060, **NOMINAL),
  "gated_delta_hybrid_toy": Recipe(model, dict(depth=4, pattern="d-d-d-a-", **TOY), vocab=256),
}
