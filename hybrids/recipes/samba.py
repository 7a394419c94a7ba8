"""Samba: Mamba, MLP, attention over a window of 2,048, MLP, and so on; embedding and logits share a table.

Source: Ren et al. 2024, arXiv:2406.07522; microsoft/Samba, lit_gpt/config.py at 19845f41.
"""

from typing import Any

from hybrids.recipes.recipe import Recipe, language_model


def model(
  *,
  width: int,
  depth: int,
  heads: int,
  inner: int,
  kv_heads: int | None = None,
  window: int = 2048,
  state: int = 16,
  norm_eps: float = 1e-5,
  tie: bool = True,
) -> dict[str, Any]:
  """Returns the sections of `depth` layers, Mamba and attention by turns, with a gated MLP behind each."""
  return language_model(
    width=width,
    pattern="m-a-",
    depth=2 * depth,
    letters={
      "m": dict(name="mamba", state=state),
      "a": dict(name="softmax", heads=heads, kv_heads=kv_heads, window=window, position="rope"),
      "-": dict(name="gated_mlp", inner=inner),
    },
    norm_eps=norm_eps,
    head=dict(tie=tie),
  )


RECIPES = {
  "samba_421m": Recipe(
    model, dict(width=1536, depth=12, heads=12, inner=4096), 421_000_000, within=0.01, vocab=32_000, length=4096
  ),
  "samba_1.3b": Recipe(
    model, dict(width=2304, depth=18, heads=18, inner=6144), 1_300_000_000, within=0.03, vocab=32_000, length=4096
  ),
  "samba_toy": Recipe(model, dict(width=8, depth=2, heads=2, inner=12, window=3, state=2), vocab=256),
}
