"""Zamba and Zamba2: Mamba or Mamba-2 with attention and an MLP that are shared, before every sixth layer or so.

What the shared block makes of [x, embedding] goes, by a map of its own at each use, to the next layer's input alone.
Zamba2 has two shared blocks by turns, and low-rank changes of the MLP at each use, whose first factor the gate and the
input have in common. Zamba's Mamba has two heads with maps of their own for steps, B and C.

Source: Glorioso et al. 2024, arXiv:2405.16712, and checkpoint Zyphra/Zamba-7B-v1; Glorioso et al. 2024,
arXiv:2411.15242, and checkpoint Zyphra/Zamba2-2.7B. Numbers of parameters are those of transformers 5.24.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flax.core import FrozenDict

from hybrids.recipes.recipe import Recipe, language_model

# the letters of a shared block's attention and MLP, for each block
BLOCKS = ("sf", "tu", "vw", "xy", "ab", "cd", "eh", "ij")


def zamba(
  *,
  width: int,
  depth: int,
  shared: Sequence[int],
  heads: int,
  inner: int,
  ssm: Mapping[str, Any] = FrozenDict(),
  softmax: Mapping[str, Any] = FrozenDict(),
  norm_eps: float = 1e-5,
  tie: bool = True,
) -> dict[str, Any]:
  """Returns the sections of `depth` Mamba layers; before those numbered in `shared` stands the shared block.

  Args:
    ssm, softmax: further fields of Mamba and of the shared attention.
  """
  mamba = dict(name="mamba", groups=2, heads=2) | dict(ssm)
  return _model(width, depth, shared, mamba, [_block(width, heads, inner, softmax, norm_eps)], norm_eps, tie)


def zamba2(
  *,
  width: int,
  depth: int,
  shared: Sequence[int],
  heads: int,
  inner: int,
  blocks: int = 2,
  rank: int = 128,
  adapted_attention: bool = False,
  ssm: Mapping[str, Any] = FrozenDict(),
  softmax: Mapping[str, Any] = FrozenDict(),
  norm_eps: float = 1e-5,
  tie: bool = True,
) -> dict[str, Any]:
  """Returns the sections of `depth` Mamba-2 layers; before those numbered in `shared` stands a shared block.

  Args:
    blocks: how many shared blocks take turns.
    rank: of the changes at each use, of the MLP and, if `adapted_attention`, of queries, keys and values.
    ssm, softmax: further fields of Mamba-2 and of the shared attention.
  """
  mamba2 = dict(name="mamba2", state=64, dt_least=1e-3) | dict(ssm)
  made = [_block(width, heads, inner, softmax, norm_eps) for _ in range(blocks)]
  pair = "(gate|in)_proj"
  lora = dict(lora=rank, lora_only=f"mixer/({pair}|inner/[qkv]_proj)" if adapted_attention else pair, lora_joint=pair)
  return _model(width, depth, shared, mamba2, made, norm_eps, tie, **lora)


def _block(width: int, heads: int, inner: int, softmax: Mapping[str, Any], norm_eps: float) -> list[dict[str, Any]]:
  """Returns the branches of a shared block: attention from twice the width to the width, and an MLP."""
  attention: dict[str, Any] = dict(
    name="softmax", heads=heads, head_size=2 * width // heads, out_features=width
  ) | dict(softmax)
  attention["scale"] = (attention["head_size"] / 2) ** -0.5
  both = dict(name="with_embedding", norm=dict(name="rms", eps=norm_eps), mixer=attention)
  mlp = dict(name="gated_mlp", inner=inner, activation="gelu")
  return [
    dict(mixer=both, norm_position="none", feeds=True),
    dict(mixer=mlp, reads="fed", feeds=True),
  ]


def _model(
  width: int,
  depth: int,
  shared: Sequence[int],
  mixer: dict[str, Any],
  blocks: list[list[dict[str, Any]]],
  norm_eps: float,
  tie: bool,
  **stack: Any,
) -> dict[str, Any]:
  letters = {letter: branch for names, block in zip(BLOCKS, blocks) for letter, branch in zip(names, block)}
  uses = {layer: BLOCKS[use % len(blocks)] + "g" for use, layer in enumerate(shared)}
  pattern = "".join(uses.get(layer, "m") for layer in range(depth))
  return language_model(
    width=width,
    pattern=pattern,
    letters={"m": mixer, "g": dict(mixer=mixer, reads="both"), **letters},
    norm_eps=norm_eps,
    head=dict(tie=tie),
    shared="".join(letter for letter in letters if letter in pattern),
    **stack,
  )


RECIPES = {
  "zamba_7b": Recipe(
    zamba,
    dict(width=3712, depth=76, shared=(2, *range(7, 76, 6)), heads=16, inner=14_848),
    7_232_490_496,
    vocab=32_000,
    length=4096,
  ),
  "zamba_toy": Recipe(
    zamba, dict(width=8, depth=4, shared=(1, 3), heads=2, inner=4, ssm=dict(state=2, dt_rank=1)), vocab=256
  ),
  "zamba2_2.7b": Recipe(
    zamba2,
    dict(width=2560, depth=54, shared=(6, 12, 18, 24, 30, 36, 42, 47, 51), heads=32, inner=10_240),
    2_662_214_560,
    vocab=32_000,
    length=4096,
  ),
  "zamba2_toy": Recipe(
    zamba2,
    dict(width=8, depth=6, shared=(1, 3, 5), heads=2, inner=4, rank=1, ssm=dict(state=2, head_size=4)),
    vocab=256,
  ),
}
