"""Hawk, Griffin and RecurrentGemma: RG-LRU blocks, in the latter two every third one attention over a window.

The vocabulary of the paper's own models is not public; RecurrentGemma's is Gemma's. The paper's sizes are nominal, and
so are the numbers of parameters here: they are met to within 6 % with 32,000 tokens.

Source: De et al. 2024, arXiv:2402.19427, app. C, table 2 (Hawk, Griffin); Botev et al. 2024, arXiv:2404.07839, table
1, and checkpoints google/recurrentgemma-2b and -9b.
"""

from typing import Any

from hybrids.recipes.recipe import Recipe, language_model


def model(
  *,
  width: int,
  depth: int,
  heads: int,
  blocks: int | None = None,
  inner: int | None = None,
  mlp: int | None = None,
  head_size: int | None = None,
  kv_heads: int = 1,
  window: int = 2048,
  rotary: float = 0.5,
  theta: float = 1e4,
  taps: int = 4,
  a_init: str = "recurrentgemma",
  scale: float | None = None,
  softcap: float = 30.0,
  norm_eps: float = 1e-6,
  pattern: str = "rra",
  tie: bool = True,
) -> dict[str, Any]:
  """Returns the sections of `depth` blocks by the letters of `pattern`, r for RG-LRU and a for attention; then MLPs.

  Args:
    blocks: of the matrices of the recurrence's gates; `heads` if not given.
    inner: channels of the recurrence; `width` if not given.
    mlp: inner channels of the MLP; three times the width if not given.
    scale: of the embedding; the root of the width if not given.
  """
  recurrence = dict(name="rglru", inner=inner, heads=blocks or heads, taps=taps, a_init=a_init)
  attention = dict(
    name="local",
    heads=heads,
    kv_heads=kv_heads,
    head_size=head_size,
    window=window,
    rotary=rotary,
    theta=theta,
  )
  perceptron = dict(name="gated_mlp", inner=mlp or 3 * width, activation="gelu_tanh", bias=True)
  return language_model(
    width=width,
    pattern="".join(letter + "-" for letter in pattern),
    depth=2 * depth,
    letters={"r": recurrence, "a": attention, "-": perceptron},
    norm_eps=norm_eps,
    embed=dict(scale=width**0.5 if scale is None else scale),
    head=dict(tie=tie, softcap=softcap),
  )


PAPER: dict[str, Any] = dict(blocks=16, window=1024, a_init="paper", softcap=0.0)
NOMINAL: dict[str, Any] = dict(vocab=32_000, within=0.06)
TOY: dict[str, Any] = dict(width=8, heads=2, window=3, mlp=12)

RECIPES = {
  "hawk_1b": Recipe(
    model, dict(width=2048, depth=24, heads=16, inner=2560, pattern="r", **PAPER), 1_300_000_000, **NOMINAL
  ),
  "hawk_3b": Recipe(
    model, dict(width=3072, depth=24, heads=24, inner=4096, pattern="r", **PAPER), 3_000_000_000, **NOMINAL
  ),
  "hawk_7b": Recipe(
    model, dict(width=4096, depth=32, heads=32, inner=5632, pattern="r", **PAPER), 7_000_000_000, **NOMINAL
  ),
  "hawk_toy": Recipe(model, dict(depth=2, pattern="r", **TOY), vocab=256),
  "griffin_1b": Recipe(model, dict(width=2048, depth=24, heads=16, inner=2560, **PAPER), 1_300_000_000, **NOMINAL),
  "griffin_3b": Recipe(model, dict(width=3072, depth=24, heads=24, inner=4096, **PAPER), 3_000_000_000, **NOMINAL),
  "griffin_7b": Recipe(model, dict(width=4096, depth=32, heads=32, inner=5632, **PAPER), 7_000_000_000, **NOMINAL),
  "griffin_14b": Recipe(model, dict(width=5120, depth=40, heads=40, inner=8192, **PAPER), 14_000_000_000, **NOMINAL),
  "griffin_toy": Recipe(model, dict(depth=3, softcap=0.0, **TOY), vocab=256),
  "recurrentgemma_2b": Recipe(
    model, dict(width=2560, depth=26, heads=10, mlp=7680), 2_682_862_080, vocab=256_000, length=8192
  ),
  "recurrentgemma_9b": Recipe(
    model, dict(width=4096, depth=38, heads=16, mlp=12_288), 8_579_977_216, vocab=256_000, length=8192
  ),
  "recurrentgemma_toy": Recipe(model, dict(depth=3, **TOY), vocab=256),
}
