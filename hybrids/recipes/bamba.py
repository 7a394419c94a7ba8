"""Bamba: Mamba-2 with attention in three layers, whose heads turn by half, each layer followed by a gated MLP.

Source: checkpoint ibm-ai-platform/Bamba-9B-v1; Mamba-2 is Dao & Gu 2024, arXiv:2405.21060.
"""

from collections.abc import Sequence
from typing import Any

from hybrids.recipes.recipe import Recipe, language_model


def model(
  *,
  width: int,
  depth: int,
  attention: Sequence[int],
  inner: int,
  heads: int,
  kv_heads: int,
  head_size: int | None = None,
  state: int = 128,
  ssm_inner: int | None = None,
  ssm_head_size: int = 64,
  groups: int = 1,
  taps: int = 4,
  conv_bias: bool = True,
  bias: bool = False,
  rotary: float = 0.5,
  theta: float = 1e4,
  norm_eps: float = 1e-5,
  tie: bool = False,
) -> dict[str, Any]:
  """Returns the sections of `depth` layers, of which those numbered in `attention`, counted from 0, have attention.

  Args:
    ssm_inner: inner channels of Mamba-2; twice the width if not given.
  """
  mamba2 = dict(
    name="mamba2",
    state=state,
    inner=ssm_inner,
    head_size=ssm_head_size,
    groups=groups,
    taps=taps,
    conv_bias=conv_bias,
    bias=bias,
    norm_eps=norm_eps,
  )
  softmax = dict(
    name="softmax",
    heads=heads,
    kv_heads=kv_heads,
    head_size=head_size,
    position="rope",
    rotary=rotary,
    theta=theta,
  )
  return language_model(
    width=width,
    pattern="".join("a-" if layer in attention else "m-" for layer in range(depth)),
    letters={"m": mamba2, "a": softmax, "-": dict(name="gated_mlp", inner=inner)},
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
    dict(width=16, depth=2, attention=(1,), inner=12, heads=2, kv_heads=1, state=2, ssm_head_size=4),
    vocab=256,
  ),
}
