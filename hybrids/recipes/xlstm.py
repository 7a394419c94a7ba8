"""xLSTM: mLSTM blocks, of which one in several may be an sLSTM block with an MLP; xLSTM 7B has another mLSTM and MLPs.

The paper writes xLSTM[a:b] for a blocks of mLSTM to b of sLSTM. Departs: where the latter stand is not said for all
sizes; here it is second in each eight.

Source: Beck et al. 2024, arXiv:2405.04517, table 1 and app. D; Beck et al. 2025, arXiv:2503.13427, and checkpoint
NX-AI/xLSTM-7b.
"""

from typing import Any

from hybrids.recipes.recipe import Recipe, language_model


def large(
  *,
  width: int,
  depth: int,
  heads: int,
  inner: int,
  qk_factor: float = 0.5,
  soft_cap: float | None = 15.0,
  softcap: float = 30.0,
  eps: float = 1e-6,
  norm_eps: float = 1e-6,
  bias: bool = False,
  tie: bool = False,
) -> dict[str, Any]:
  """Returns the sections of xLSTM 7B with `depth` blocks of mLSTM and a gated MLP.

  Args:
    soft_cap: of the gates; `softcap` is that of the logits.
    eps: of the normaliser; `norm_eps` is that of all norms.
    bias: of all maps and norms.
  """
  mlstm = dict(name="mlstm_large", heads=heads, qk_factor=qk_factor, soft_cap=soft_cap, eps=eps, norm_eps=norm_eps)
  sections = language_model(
    width=width,
    pattern="m-",
    depth=2 * depth,
    letters={"m": mlstm | dict(bias=bias), "-": dict(name="gated_mlp", inner=inner, bias=bias)},
    norm_eps=norm_eps,
    head=dict(tie=tie, softcap=softcap),
  )
  sections["body"]["branch"]["norm"]["use_bias"] = bias
  return sections


def model(
  *,
  width: int,
  depth: int,
  heads: int = 4,
  pattern: str = "m",
  inner: int | None = None,
  expand: float = 2.0,
  block_size: int | None = 4,
  norm_eps: float = 1e-5,
  tie: bool = False,
) -> dict[str, Any]:
  """Returns the sections of xLSTM[a:b], `depth` blocks by a pattern of m, mLSTM, and s, sLSTM with an MLP.

  Args:
    pattern: one letter a block, xLSTM[7:1] having one s in eight.
    inner: channels of the MLPs behind sLSTM; 4/3 of the width, rounded up to a multiple of 64, if not given.
  """
  blocks = (pattern * depth)[:depth]
  letters = blocks.replace("s", "s-")
  inner = inner or -(-4 * width // 192) * 64
  return language_model(
    width=width,
    pattern=letters,
    letters={
      "m": dict(name="mlstm", heads=heads, expand=expand, block_size=block_size, norm_eps=norm_eps),
      "s": dict(name="slstm", heads=heads),
      "-": dict(name="gated_mlp", inner=inner, activation="gelu"),
    },
    norm="layer",
    norm_eps=norm_eps,
    head=dict(tie=tie),
  )


RECIPES = {
  "xlstm_7b": Recipe(
    large, dict(width=4096, depth=32, heads=8, inner=10_944), 6_865_424_896, vocab=50_304, length=8192
  ),
  "xlstm_7b_toy": Recipe(large, dict(width=8, depth=2, heads=2, inner=12), vocab=256),
  "xlstm_400m_1to0": Recipe(model, dict(width=1024, depth=48), 409_300_000, within=0.01, vocab=50_304),
  "xlstm_400m_7to1": Recipe(
    model, dict(width=1024, depth=48, pattern="msmmmmmm"), 408_400_000, within=0.01, vocab=50_304
  ),
  "xlstm_toy": Recipe(model, dict(width=8, depth=2, heads=2, pattern="ms", inner=8), vocab=256),
}
