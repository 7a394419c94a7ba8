"""OLMo Hybrid: three layers of gated delta nets with negative eigenvalues for each of attention, then gated MLPs.

Delta nets stand behind a norm, and the MLPs with them; attention and the MLP behind it have the norm at their output.

Source: checkpoint allenai/Olmo-Hybrid-7B; OLMo 2 is arXiv:2501.00656 (norms at the output, norms of queries and keys).
"""

from collections.abc import Mapping
from typing import Any

from flax.core import FrozenDict

from hybrids.recipes.recipe import Recipe, language_model


def model(
  *,
  width: int,
  depth: int,
  inner: int,
  heads: int,
  kv_heads: int | None = None,
  delta: Mapping[str, Any],
  softmax: Mapping[str, Any] = FrozenDict(position="rope", theta=1e4),
  pattern: str = "ddda",
  norm_eps: float = 1e-6,
  tie: bool = False,
) -> dict[str, Any]:
  """Returns the sections of `depth` layers by a pattern of d, delta nets, and a, attention.

  Args:
    delta, softmax: further fields of these mixers.
  """
  attention = dict(name="softmax", heads=heads, kv_heads=kv_heads, qk_norm="all", norm_eps=norm_eps) | dict(softmax)
  mlp = dict(name="gated_mlp", inner=inner)
  return language_model(
    width=width,
    pattern=pattern.replace("d", "d-").replace("a", "a+"),
    depth=2 * depth,
    letters={
      "d": dict(name="gated_delta_net", negative_eigenvalues=True, norm_eps=1e-5) | dict(delta),
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
    dict(width=3840, depth=32, inner=11_008, heads=30, delta=dict(heads=30, head_size=96)),
    7_430_870_688,
    vocab=100_352,
    length=8192,
  ),
  "olmo_hybrid_toy": Recipe(
    model,
    dict(width=8, depth=2, pattern="da", inner=12, heads=2, delta=dict(heads=2, head_size=2)),
    vocab=256,
  ),
}
