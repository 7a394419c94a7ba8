"""Ling's hybrid (Bailing): five layers of Kimi delta attention for each of latent attention, then experts.

Unlike Kimi Linear's, decays are bounded below, their maps and those of gates are whole matrices, and latent attention
has rotations and a gate for each head; experts stand in groups.

Source: the defaults of transformers 5.24, model type bailing_hybrid, without the layer that predicts a second token;
Kimi delta attention is arXiv:2510.26692.
"""

from collections.abc import Mapping
from typing import Any

from hybrids.recipes import kimi_linear
from hybrids.recipes.recipe import Recipe


def model(
  *,
  width: int,
  pattern: str,
  delta: Mapping[str, Any],
  latent: Mapping[str, Any],
  experts: Mapping[str, Any],
  inner: int,
  lower_bound: float = -5.0,
  norm_eps: float = 1e-6,
  tie: bool = False,
) -> dict[str, Any]:
  """Returns the sections of a stack by a pattern of k, delta attention, a, latent attention, - an MLP, and e, experts.

  Args:
    delta, latent, experts: fields of these mixers.
    inner: channels of the MLP.
    lower_bound: of the logarithms of decays.
  """
  return kimi_linear.model(
    width=width,
    pattern=pattern,
    delta=dict(delta, maps="full", lower_bound=lower_bound),
    latent=dict(position="rope", gate="head", theta=6e6) | dict(latent),
    experts=experts,
    inner=inner,
    norm_eps=norm_eps,
    tie=tie,
  )


RECIPES = {
  "bailing_hybrid_124b": Recipe(
    model,
    dict(
      width=2560,
      pattern="k-k-kekekeae" + "kekekekekeae" * 6,
      delta=dict(heads=32, head_size=128),
      latent=dict(heads=32, rank=512, head_size=128, rope_size=64, value_size=128),
      experts=dict(experts=512, top_k=8, inner=768, shared=768, groups=8, top_groups=4, scale=2.5),
      inner=6144,
    ),
    124_414_191_072,
    vocab=157_184,
    length=8192,
  ),
  "bailing_hybrid_toy": Recipe(
    model,
    dict(
      width=8,
      pattern="k-ae",
      delta=dict(heads=2, head_size=4),
      latent=dict(heads=2, rank=4, head_size=4, rope_size=2, value_size=4),
      experts=dict(experts=4, top_k=2, inner=4, shared=4, groups=2, top_groups=1),
      inner=12,
    ),
    vocab=256,
  ),
}
