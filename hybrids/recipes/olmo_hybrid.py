"""OLMo Hybrid: three layers of gated delta nets with negative eigenvalues for each of attention, then gated MLPs.

Delta nets stand behind a norm, and the MLPs with them; attention and the MLP behind it have the norm at their output.

Source: checkpoint allenai/Olmo-Hybrid-7B; OLMo 2 is arXiv:2501.00656 (norms at the output, norms of queries and keys).
"""

from typing import Any

from hybrids.recipes.recipe import Recipe, language_model


def model(
  *,
  width: int,
  depth: int,
  inner: int,
  heads: int,
  kv_heads: int | None = None,
  delta_heads: int,
  key_size: int,
  value_size: int,
  value_heads: int | None = None,
  pattern: str = "ddda",
  taps: int = 4,
  negative_eigenvalues: bool = True,
  position: str = "rope",
  theta: float = 1e4,
  norm_eps: float = 1e-6,
  tie: bool = False,
) -> dict[str, Any]:
  """Returns the sections of `depth` layers by a pattern of d, delta nets, and a, attention."""
  delta = dict(
    name="gated_delta_net",
    heads=delta_heads,
    head_size=key_size,
    value_heads=value_heads,
    expand_v=value_size / key_size,
    taps=taps,
    negative_eigenvalues=negative_eigenvalues,
  )
  turns = dict(position="rope", theta=theta) if position == "rope" else dict(position=position)
  attention = dict(name="softmax", heads=heads, kv_heads=kv_heads, qk_norm="all", norm_eps=norm_eps, **turns)
  mlp = dict(name="gated_mlp", inner=inner)
  return language_model(
    width=width,
    pattern=pattern.replace("d", "d-").replace("a", "a+"),
    depth=2 * depth,
    letters={
      "d": delta,
      "-": mlp,
      "a": dict(mixer=attention, norm_position="output"),
      "+": dict(mixer=mlp, norm_position="output"),
    },
    norm_eps=norm_eps,
    head=dict(tie=tie),
  )


RECIPES = {
  "olmo_hybrid_7b": Recipe(
    model,
    dict(width=3840, depth=32, inner=11_008, heads=30, delta_heads=30, key_size=96, value_size=192),
    7_430_870_688,
    vocab=100_352,
    length=8192,
  ),
  "olmo_hybrid_toy": Recipe(
    model,
    dict(width=8, depth=2, pattern="da", inner=12, heads=2, delta_heads=2, key_size=2, value_size=4),
    vocab=256,
  ),
}
