"""Granite 4.0's hybrids: Mamba-2 with attention without positions in a layer of ten, then experts or a gated MLP.

The router takes the softmax of the chosen logits; a shared expert is added. Departs: the factors of the embedding, of
branches and of logits are 1 in the sizes below, as they change no shape; a checkpoint's config has its own.

Source: checkpoints ibm-granite/granite-4.0-h-micro, -h-tiny and -h-small; Mamba-2 is Dao & Gu 2024, arXiv:2405.21060.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flax.core import FrozenDict

from hybrids.recipes.recipe import Recipe, language_model


def model(
  *,
  width: int,
  depth: int,
  attention: Sequence[int],
  heads: int,
  kv_heads: int,
  inner: int,
  experts: int = 0,
  top_k: int = 0,
  shared: int | None = None,
  balance: float = 0.01,
  ssm: Mapping[str, Any] = FrozenDict(),
  softmax: Mapping[str, Any] = FrozenDict(),
  embed_scale: float = 1.0,
  head_scale: float = 1.0,
  branch_scale: float = 1.0,
  norm_eps: float = 1e-5,
  tie: bool = True,
) -> dict[str, Any]:
  """Returns the sections of `depth` layers, of which those numbered in `attention`, counted from 0, have attention.

  Args:
    inner: channels of each expert, or of the MLP where there are none.
    shared: channels of the shared expert.
    ssm, softmax: further fields of Mamba-2 and of attention.
  """
  moe = dict(name="moe", experts=experts, top_k=top_k, shared=shared, scores="softmax_of_chosen", balance=balance)
  return language_model(
    width=width,
    pattern="".join("ae" if layer in attention else "me" for layer in range(depth)),
    letters={
      "m": dict(name="mamba2", norm_eps=norm_eps) | dict(ssm),
      "a": dict(name="softmax", heads=heads, kv_heads=kv_heads) | dict(softmax),
      "e": dict(moe if experts else dict(name="gated_mlp"), inner=inner),
    },
    norm_eps=norm_eps,
    branch=dict(scale=branch_scale),
    embed=dict(scale=embed_scale),
    head=dict(tie=tie, scale=head_scale),
  )


PLACES: dict[str, Any] = dict(depth=40, attention=(5, 15, 25, 35))
TEXT: dict[str, Any] = dict(vocab=100_352, length=4096, within=0.01)

RECIPES = {
  "granite_4_h_micro": Recipe(model, dict(PLACES, width=2048, heads=32, kv_heads=8, inner=8192), 3_190_000_000, **TEXT),
  "granite_4_h_tiny": Recipe(
    model,
    dict(PLACES, width=1536, heads=12, kv_heads=4, inner=512, experts=64, top_k=6, shared=1024),
    6_940_000_000,
    1_470_000_000,
    **TEXT,
  ),
  "granite_4_h_small": Recipe(
    model,
    dict(PLACES, width=4096, heads=32, kv_heads=8, inner=768, experts=72, top_k=10, shared=1536),
    32_200_000_000,
    9_000_000_000,
    **TEXT,
  ),
  "granite_toy": Recipe(
    model,
    dict(
      width=8,
      depth=2,
      attention=(1,),
      heads=2,
      kv_heads=1,
      inner=4,
      experts=3,
      top_k=2,
      shared=4,
      ssm=dict(state=2, head_size=4),
    ),
    vocab=256,
  ),
}
