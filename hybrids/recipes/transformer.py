"""Transformers: GPT-2, GPT-NeoX (of which Pythia is one), and Llama.

GPT-2 has learned positions, LayerNorm and biases; GPT-NeoX attention and MLP side by side, each behind a norm of its
own, and rotations of a quarter of each head; Llama RMSNorm, rotations, gated MLPs and no biases.

Source: Radford et al. 2019 (GPT-2); Black et al. 2022, arXiv:2204.06745, and Biderman et al. 2023, arXiv:2304.01373,
table 1 (GPT-NeoX, Pythia); Touvron et al. 2023, arXiv:2302.13971, table 2 (Llama).
"""

from typing import Any

from hybrids.recipes.recipe import Recipe, language_model


def gpt2(
  *, width: int, depth: int, heads: int, positions: int = 1024, inner: int | None = None, norm_eps: float = 1e-5
) -> dict[str, Any]:
  """Returns the sections of GPT-2 with `depth` blocks of attention and an MLP."""
  attention = dict(name="softmax", heads=heads, bias="all")
  mlp = dict(name="mlp", expand=(inner or 4 * width) / width, activation="gelu_tanh", bias=True)
  return language_model(
    width=width,
    pattern="a-",
    depth=2 * depth,
    letters={"a": attention, "-": mlp},
    norm="layer",
    norm_eps=norm_eps,
    embed=dict(position="learned"),
    head=dict(tie=True),
  ) | dict(max_len=positions)


def gpt_neox(
  *,
  width: int,
  depth: int,
  heads: int,
  inner: int | None = None,
  rotary: float = 0.25,
  theta: float = 1e4,
  scaling: dict[str, Any] | None = None,
  activation: str = "gelu",
  bias: str = "all",
  norm_eps: float = 1e-5,
  tie: bool = False,
) -> dict[str, Any]:
  """Returns the sections of GPT-NeoX with `depth` layers of attention beside an MLP.

  Args:
    rotary, theta, scaling, bias: of attention.
  """
  norm = dict(name="layer", eps=norm_eps)
  attention = dict(name="softmax", heads=heads, bias=bias, position="rope", rotary=rotary, theta=theta, scaling=scaling)
  mlp = dict(name="mlp", expand=(inner or 4 * width) / width, activation=activation, bias=True)
  both = [dict(mixer=mixer, norm_position="pre", norm=norm) for mixer in (attention, mlp)]
  return language_model(
    width=width,
    pattern="p",
    depth=depth,
    letters={"p": dict(mixer=dict(name="parallel", branches=both), norm_position="none")},
    norm="layer",
    norm_eps=norm_eps,
    head=dict(tie=tie),
  )


def llama(
  *,
  width: int,
  depth: int,
  heads: int,
  inner: int,
  kv_heads: int | None = None,
  head_size: int | None = None,
  theta: float = 1e4,
  scaling: dict[str, Any] | None = None,
  activation: str = "silu",
  norm_eps: float = 1e-6,
  tie: bool = False,
  mlp_bias: bool = False,
  **more: Any,
) -> dict[str, Any]:
  """Returns the sections of Llama with `depth` blocks of attention and a gated MLP; `more` are fields of the former."""
  attention = dict(
    name="softmax",
    heads=heads,
    kv_heads=kv_heads,
    head_size=head_size,
    position="rope",
    theta=theta,
    scaling=scaling,
  )
  mlp = dict(name="gated_mlp", inner=inner, activation=activation, bias=mlp_bias)
  return language_model(
    width=width,
    pattern="a-",
    depth=2 * depth,
    letters={"a": attention | more, "-": mlp},
    norm_eps=norm_eps,
    head=dict(tie=tie),
  )


GPT2: dict[str, Any] = dict(vocab=50_257, length=1024)
NEOX: dict[str, Any] = dict(vocab=50_304)
LLAMA: dict[str, Any] = dict(vocab=32_000)

RECIPES = {
  "gpt2": Recipe(gpt2, dict(width=768, depth=12, heads=12), 124_439_808, **GPT2),
  "gpt2_medium": Recipe(gpt2, dict(width=1024, depth=24, heads=16), 354_823_168, **GPT2),
  "gpt2_large": Recipe(gpt2, dict(width=1280, depth=36, heads=20), 774_030_080, **GPT2),
  "gpt2_xl": Recipe(gpt2, dict(width=1600, depth=48, heads=25), 1_557_611_200, **GPT2),
  "gpt2_toy": Recipe(gpt2, dict(width=8, depth=1, heads=2, positions=16), vocab=256, length=16),
  "pythia_70m": Recipe(gpt_neox, dict(width=512, depth=6, heads=8), 70_426_624, **NEOX),
  "pythia_160m": Recipe(gpt_neox, dict(width=768, depth=12, heads=12), 162_322_944, **NEOX),
  "pythia_410m": Recipe(gpt_neox, dict(width=1024, depth=24, heads=16), 405_334_016, **NEOX),
  "pythia_1b": Recipe(gpt_neox, dict(width=2048, depth=16, heads=8), 1_011_781_632, **NEOX),
  "pythia_1.4b": Recipe(gpt_neox, dict(width=2048, depth=24, heads=16), 1_414_647_808, **NEOX),
  "pythia_2.8b": Recipe(gpt_neox, dict(width=2560, depth=32, heads=32), 2_775_208_960, **NEOX),
  "pythia_6.9b": Recipe(gpt_neox, dict(width=4096, depth=32, heads=32), 6_857_302_016, vocab=50_432),
  "pythia_12b": Recipe(gpt_neox, dict(width=5120, depth=36, heads=40), 11_846_072_320, vocab=50_688),
  "gpt_neox_20b": Recipe(gpt_neox, dict(width=6144, depth=44, heads=64), 20_554_567_680, vocab=50_432),
  "gpt_neox_toy": Recipe(gpt_neox, dict(width=16, depth=2, heads=2), vocab=256),
  "llama_7b": Recipe(llama, dict(width=4096, depth=32, heads=32, inner=11_008), 6_738_415_616, **LLAMA),
  "llama_13b": Recipe(llama, dict(width=5120, depth=40, heads=40, inner=13_824), 13_015_864_320, **LLAMA),
  "llama_33b": Recipe(llama, dict(width=6656, depth=60, heads=52, inner=17_920), 32_528_943_616, **LLAMA),
  "llama_65b": Recipe(llama, dict(width=8192, depth=80, heads=64, inner=22_016), 65_285_660_672, **LLAMA),
  "llama_toy": Recipe(llama, dict(width=8, depth=2, heads=2, inner=12), vocab=256),
}
