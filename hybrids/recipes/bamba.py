"""Bamba: Mamba-2 with attention in three layers, whose heads turn by half, each layer followed by a gated MLP.

Source: checkpoint ibm-ai-platform/Bamba-9B-v1; Mamba-2 is Dao & Gu 2024, arXiv:2405.21060.
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
  inner: int,
  heads: int,
  kv_heads: int,
  ssm: Mapping[str, Any] = FrozenDict(),
  softmax: Mapping[str, Any] = FrozenDict(),
  mlp_bias: bool = False,
  norm_eps: float = 1e-5,
  tie: bool = False,
) -> dict[str, Any]:
  """Returns the sections of `depth` layers, of which those numbered in `attention`, counted from 0, have attention.

  Args:
    ssm, softmax: further fields of Mamba-2 and of attention.
  """
  turning = dict(name="softmax", heads=heads, kv_heads=kv_heads, position="rope", rotary=0.5)
  return language_model(
    width=width,
    pattern="".join("a-" if layer in attention else "m-" for layer in range(depth)),
    letters={
      "m": dict(name="mamba2", norm_eps=norm_eps) | dict(ssm),
      "a": turning | dict(softmax),
      "-": dict(name="gated_mlp", inner=inner, bias=mlp_bias),
    },
    norm_eps=norm_eps,
    head=dict(tie=tie),
  )


RECIPES = {
  "bamba_9b": Recipe(
    model,
    dict(width=4096, depth=32, attention=(9, 18, 27), inner=14_336, heads=32, kv_heads=8),
    9_780_235_392,
    vocab=128_256,
    length=4096,
  ),
  "bamba_toy": Recipe(
    model,
    dict(width=16, depth=2, attention=(1,), inner=12, heads=2, kv_heads=1, ssm=dict(state=2, head_size=4)),
    vocab=256,
  ),
}
