"""Jamba: Mamba layers with an attention layer in eight, each followed by an MLP or, every second one, by experts.

Source: Lieber et al. 2024, arXiv:2403.19887, and checkpoint ai21labs/Jamba-v0.1; Jamba Team 2024, arXiv:2408.12570, and
checkpoints AI21-Jamba-1.5-Mini and -Large.
"""

from typing import Any

from hybrids.recipes.recipe import Recipe, language_model


def model(
  *,
  width: int,
  depth: int,
  inner: int,
  heads: int,
  kv_heads: int,
  experts: int = 16,
  top_k: int = 2,
  pattern: str = "m-mem-mea-mem-me",
  state: int = 16,
  expand: int = 2,
  taps: int = 4,
  dt_rank: int | None = None,
  norm_eps: float = 1e-6,
  tie: bool = False,
) -> dict[str, Any]:
  """Returns the sections of `depth` layers, two letters each: m Mamba or a attention, then - an MLP or e experts."""
  return language_model(
    width=width,
    pattern=pattern,
    depth=2 * depth,
    letters={
      "m": dict(name="mamba", state=state, expand=expand, taps=taps, dt_rank=dt_rank, norms="learned"),
      "a": dict(name="softmax", heads=heads, kv_heads=kv_heads),
      "-": dict(name="gated_mlp", inner=inner),
      "e": dict(name="moe", experts=experts, top_k=top_k, inner=inner, balance=0.001),
    },
    norm_eps=norm_eps,
    head=dict(tie=tie),
  )


MINI: dict[str, Any] = dict(width=4096, depth=32, inner=14_336, heads=32, kv_heads=8)
LARGE: dict[str, Any] = dict(width=8192, depth=72, inner=24_576, heads=64, kv_heads=8)
LONG: dict[str, Any] = dict(vocab=65_536, length=262_144)

RECIPES = {
  "jamba_v0.1": Recipe(model, MINI, 51_570_323_328, 12_000_000_000, **LONG),
  "jamba_1.5_mini": Recipe(model, MINI, 51_570_323_328, 12_000_000_000, **LONG),
  "jamba_1.5_large": Recipe(model, LARGE, 398_000_000_000, 94_000_000_000, within=0.02, **LONG),
  "jamba_toy": Recipe(
    model,
    dict(width=8, depth=2, pattern="m-ae", inner=4, heads=2, kv_heads=1, experts=3, state=2, dt_rank=1),
    vocab=256,
  ),
}
