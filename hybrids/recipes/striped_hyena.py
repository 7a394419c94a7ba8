"""StripedHyena and Evo: Hyena with modal filters, grouped attention in some layers, each followed by a gated MLP.

StripedHyena-Hessian-7B and -Nous-7B have attention in every second layer, Evo in three of 32, on bytes of DNA. The
authors' norm divides by the root mean square plus ε, ours by the root of the mean square plus ε. Evo's number is the
sum over the shapes of the authors' modules.

Source: Poli et al. 2023, StripedHyena-7B, together.ai/blog/stripedhyena-7b, togethercomputer/stripedhyena,
configs/7b-sh-32k-v0.1.yml, and the number of parameters, 7.65 billion, of its checkpoint; Nguyen et al. 2024, Evo,
bioRxiv 2024.02.27.582234, and sh_inference_config_7b.yml; the operator is arXiv:2310.18780.
"""

from collections.abc import Sequence
from typing import Any

from hybrids.recipes.recipe import Recipe, language_model


def model(
  *,
  width: int,
  depth: int,
  attention: Sequence[int],
  heads: int,
  inner: int,
  kv_heads: int | None = None,
  state: int = 8,
  bias: bool = False,
  theta: float = 1e4,
  scaling: dict[str, Any] | None = None,
  norm_eps: float = 1e-5,
  tie: bool = False,
) -> dict[str, Any]:
  """Returns the sections of `depth` layers, of which those numbered in `attention`, counted from 0, have attention.

  Args:
    state: poles of each channel of Hyena.
    bias: of all maps of attention.
  """
  softmax = dict(name="softmax", heads=heads, kv_heads=kv_heads, bias="all" if bias else "none")
  return language_model(
    width=width,
    pattern="".join("a-" if layer in attention else "h-" for layer in range(depth)),
    letters={
      "h": dict(name="hyena_modal", state=state),
      "a": softmax | dict(position="rope", theta=theta, scaling=scaling),
      "-": dict(name="gated_mlp", inner=inner),
    },
    norm_eps=norm_eps,
    head=dict(tie=tie),
  )


EVO: dict[str, Any] = dict(
  width=4096, depth=32, attention=(8, 16, 24), heads=32, inner=10_928, bias=True, norm_eps=1e-6, tie=True
)

RECIPES = {
  "striped_hyena_7b": Recipe(
    model,
    dict(
      width=4096,
      depth=32,
      attention=tuple(range(1, 32, 2)),
      heads=32,
      kv_heads=8,
      inner=14_336,
      state=2,
      theta=5e5,
    ),
    7_650_000_000,
    within=0.002,
    vocab=32_000,
    length=32_768,
  ),
  "evo_7b": Recipe(model, EVO, 6_452_781_056, vocab=512, length=8192),
  "striped_hyena_toy": Recipe(
    model, dict(width=8, depth=2, attention=(1,), heads=2, kv_heads=1, inner=12, state=2), vocab=256
  ),
}
