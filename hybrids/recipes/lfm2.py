"""LFM2 and LFM3: gated short convolutions, grouped attention in some layers, then gated MLPs or, in part, experts.

LFM3 has norms before and after each mixer, a gate for each head, and two kinds of attention by turns: over a window,
and over everything, of whose heads half turn, by the rule "proportional".

Source: Liquid AI 2025, arXiv:2511.23404, and checkpoints LiquidAI/LFM2-350M, -700M, -1.2B, -2.6B and -8B-A1B; LFM3 by
the defaults of transformers 5.24.
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
  taps: int = 3,
  bias: bool = False,
  softmax: Mapping[str, Any] = FrozenDict(),
  dense: int | None = None,
  experts: Mapping[str, Any] = FrozenDict(),
  norm_eps: float = 1e-5,
  tie: bool = True,
) -> dict[str, Any]:
  """Returns the sections of `depth` layers, of which those numbered in `attention`, counted from 0, have attention.

  Args:
    bias: of the convolutions and the maps around them.
    dense: how many of the first layers have an MLP; the others have experts. All if not given.
    softmax, experts: further fields of attention and of `moe`.
  """
  attends = dict(name="softmax", heads=heads, kv_heads=kv_heads, qk_norm="head", norm_eps=norm_eps)
  moe = dict(name="moe", scores="sigmoid", selection_bias=True, renormalize=True, renormalize_eps=1e-6, balance=0.0)
  letters = [
    ("a" if layer in attention else "c") + ("-" if dense is None or layer < dense else "e") for layer in range(depth)
  ]
  return language_model(
    width=width,
    pattern="".join(letters),
    letters={
      "c": dict(name="gated_conv", taps=taps, bias=bias),
      "a": attends | dict(position="rope", theta=1e6) | dict(softmax),
      "-": dict(name="gated_mlp", inner=inner),
      "e": moe | dict(experts),
    },
    norm_eps=norm_eps,
    head=dict(tie=tie),
  )


WHOLE: FrozenDict[str, Any] = FrozenDict(position="rope", theta=1e6, scaling=dict(rule="proportional", share=0.5))


def lfm3(
  *,
  width: int,
  pattern: str,
  inner: int,
  heads: int,
  kv_heads: int,
  window: int = 256,
  taps: int = 7,
  bias: bool = False,
  softmax: Mapping[str, Any] = FrozenDict(),
  full: Mapping[str, Any] = WHOLE,
  near: Mapping[str, Any] = FrozenDict(position="rope", theta=1e4),
  norm_position: str = "sandwich",
  norm_eps: float = 1e-5,
  tie: bool = True,
) -> dict[str, Any]:
  """Returns the sections of a layer for each letter: c convolution, a attention, w attention over a window.

  Args:
    bias: of the convolutions and the maps around them.
    softmax: further fields of both kinds of attention; `full` and `near` are those of one kind.
  """
  attends = dict(name="softmax", heads=heads, kv_heads=kv_heads, qk_norm="head", norm_eps=norm_eps, gate="head")
  attends |= dict(softmax)
  return language_model(
    width=width,
    pattern="".join(letter + "-" for letter in pattern),
    letters={
      "c": dict(name="gated_conv", taps=taps, bias=bias),
      "a": attends | dict(full),
      "w": attends | dict(near, window=window),
      "-": dict(name="gated_mlp", inner=inner),
    },
    norm_eps=norm_eps,
    branch=dict(norm_position=norm_position),
    head=dict(tie=tie),
  )


SMALL: dict[str, Any] = dict(depth=16, attention=(2, 5, 8, 10, 12, 14), kv_heads=8)
TEXT: dict[str, Any] = dict(vocab=65_536, length=4096)
TOY: dict[str, Any] = dict(width=8, depth=2, attention=(1,), inner=12, heads=2, kv_heads=1)

RECIPES = {
  "lfm2_350m": Recipe(model, dict(SMALL, width=1024, inner=4608, heads=16), 354_483_968, **TEXT),
  "lfm2_700m": Recipe(model, dict(SMALL, width=1536, inner=6912, heads=24), 742_489_344, **TEXT),
  "lfm2_1.2b": Recipe(model, dict(SMALL, width=2048, inner=8192, heads=32), 1_170_340_608, **TEXT),
  "lfm2_2.6b": Recipe(
    model,
    dict(width=2048, depth=30, attention=(2, 5, 9, 13, 17, 21, 24, 27), inner=10_752, heads=32, kv_heads=8),
    2_569_272_320,
    **TEXT,
  ),
  "lfm2_8b_a1b": Recipe(
    model,
    dict(
      width=2048,
      depth=24,
      attention=(2, 6, 10, 14, 18, 21),
      inner=7168,
      heads=32,
      kv_heads=8,
      dense=2,
      experts=dict(experts=32, top_k=4, inner=1792),
    ),
    8_340_000_000,
    1_500_000_000,
    within=0.005,
    **TEXT,
  ),
  "lfm3_1.7b": Recipe(
    lfm3,
    dict(width=2048, pattern="cc" + "acwc" * 5 + "ac", inner=7680, heads=16, kv_heads=4, softmax=dict(head_size=128)),
    1_728_801_536,
    vocab=128_000,
    length=4096,
  ),
  "lfm3_toy": Recipe(
    lfm3,
    dict(width=8, pattern="caw", inner=12, heads=2, kv_heads=1, softmax=dict(head_size=4), window=3, taps=3),
    vocab=256,
  ),
  "lfm2_toy": Recipe(model, TOY, vocab=256),
  "lfm2_moe_toy": Recipe(model, dict(TOY, dense=1, experts=dict(experts=3, top_k=2, inner=4)), vocab=256),
}
