"""GLM-5 Next: four residual streams, three layers of delta attention for each of indexed latent attention, experts.

Source: the defaults of transformers 5.24, model type glm5_next, which are those of checkpoint zai-org/GLM-5.3-Flash;
the streams are arXiv:2512.24880, the indexer arXiv:2512.02556.
"""

from collections.abc import Mapping
from typing import Any

from flax.core import FrozenDict

from hybrids.recipes import kimi_linear
from hybrids.recipes.recipe import Recipe, used


def model(
  *,
  width: int,
  pattern: str,
  delta: Mapping[str, Any],
  latent: Mapping[str, Any],
  experts: Mapping[str, Any],
  inner: int,
  limit: float = 10.0,
  norm_eps: float = 1e-5,
  streams: Mapping[str, Any] = FrozenDict(),
  tie: bool = False,
) -> dict[str, Any]:
  """Returns the sections of a stack by a pattern of k, delta attention, a, latent attention, - an MLP, and e, experts.

  Args:
    delta, latent, experts: fields of these mixers.
    inner: channels of the MLP.
    limit: bounds what enters the products of MLP and experts.
    streams: further fields of `hyper_stack`: how many `streams`, `iterations` and `eps`.
  """
  letters = {
    "k": dict(name="kda", norm_eps=norm_eps, lower_bound=-5.0) | dict(delta),
    "a": dict(name="indexed_mla", position="none", rope_size=0, norm_eps=norm_eps) | dict(latent),
    "-": dict(name="gated_mlp", inner=inner, limit=limit),
    "e": kimi_linear.EXPERTS | dict(limit=limit) | dict(experts),
  }
  return dict(
    width=width,
    embed=dict(name="tokens"),
    body=dict(
      name="hyper_stack",
      stack=dict(pattern=pattern, depth=len(pattern), letters=used(letters, pattern)),
      norm=dict(name="rms", eps=norm_eps),
      norm_eps=norm_eps,
      **streams,
    ),
    head=dict(name="lm", tie=tie),
  )


RECIPES = {
  "glm5.3_flash": Recipe(
    model,
    dict(
      width=4096,
      pattern="k-k-k-ae" + "kekekeae" * 10 + "ke",
      delta=dict(heads=64, head_size=128),
      latent=dict(heads=64, rank=512, q_rank=1536, head_size=256, value_size=256),
      experts=dict(experts=288, top_k=8, inner=2048, shared=2048, scale=2.5),
      inner=12_288,
    ),
    vocab=154_880,
    length=8192,
  ),
  "glm5_toy": Recipe(
    model,
    dict(
      width=8,
      pattern="k-ae",
      delta=dict(heads=2, head_size=4),
      latent=dict(heads=2, rank=4, q_rank=6, head_size=4, value_size=4, index_heads=2, index_size=4, pool=2, chosen=4),
      experts=dict(experts=3, top_k=2, inner=4, shared=4),
      inner=12,
      streams=dict(streams=2, iterations=3),
    ),
    vocab=256,
  ),
}
