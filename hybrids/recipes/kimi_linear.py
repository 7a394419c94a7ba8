"""Kimi Linear: three layers of Kimi delta attention for each of latent attention, without positions; then experts.

Source: Kimi Team 2025, arXiv:2510.26692, and checkpoint moonshotai/Kimi-Linear-48B-A3B-Base.
"""

from collections.abc import Mapping
from typing import Any

from hybrids.recipes.recipe import Recipe, language_model

# a router by sigmoids whose balance is kept by a bias, as in DeepSeek-V3
EXPERTS: dict[str, Any] = dict(
  name="moe", scores="sigmoid", selection_bias=True, renormalize=True, renormalize_eps=1e-20, balance=0.0
)


def model(
  *,
  width: int,
  pattern: str,
  delta: Mapping[str, Any],
  latent: Mapping[str, Any],
  experts: Mapping[str, Any],
  inner: int,
  norm_eps: float = 1e-5,
  tie: bool = False,
) -> dict[str, Any]:
  """Returns the sections of a stack by a pattern of k, delta attention, a, latent attention, - an MLP, and e, experts.

  Args:
    delta, latent, experts: fields of these mixers.
    inner: channels of the MLP.
  """
  return language_model(
    width=width,
    pattern=pattern,
    letters={
      "k": dict(name="kda", norm_eps=norm_eps, **delta),
      "a": dict(name="mla", position="none") | dict(latent),
      "-": dict(name="gated_mlp", inner=inner),
      "e": EXPERTS | dict(experts),
    },
    norm_eps=norm_eps,
    head=dict(tie=tie),
  )


RECIPES = {
  "kimi_linear_48b": Recipe(
    model,
    dict(
      width=2304,
      pattern="k-" + "keke" + "ae" + "kekekeae" * 5 + "kekeae",
      delta=dict(heads=32, head_size=128),
      latent=dict(heads=32, rank=512, head_size=128, rope_size=64, value_size=128),
      experts=dict(experts=256, top_k=8, inner=1024, shared=1024, scale=2.446),
      inner=9216,
    ),
    49_100_000_000,
    3_000_000_000,
    within=0.01,
    vocab=163_840,
    length=8192,
  ),
  "kimi_linear_toy": Recipe(
    model,
    dict(
      width=8,
      pattern="k-ae",
      delta=dict(heads=2, head_size=4),
      latent=dict(heads=2, rank=4, head_size=4, rope_size=2, value_size=4),
      experts=dict(experts=3, top_k=2, inner=4, shared=4),
      inner=12,
    ),
    vocab=256,
  ),
}
