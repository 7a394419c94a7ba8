"""Zamba and Zamba2: Mamba or Mamba-2 with attention and an MLP that are shared, before every sixth layer or so.

What the shared block makes of [x, embedding] goes, by a map of its own at each use, to the next layer's input alone.
Zamba2 has two shared blocks by turns, and low-rank changes of the MLP at each use.

Departs: Zamba's Mamba has two heads with maps of their own for steps, B and C, which here are two groups in one map,
with zeros between them in a checkpoint: 4 % more numbers. Zamba2's low-rank changes stand at two maps here, and at both
together in the checkpoint: 0.1 % more.

Source: Glorioso et al. 2024, arXiv:2405.16712, and checkpoint Zyphra/Zamba-7B-v1; Glorioso et al. 2024,
arXiv:2411.15242, and checkpoint Zyphra/Zamba2-2.7B. Numbers of parameters are those of transformers 5.24.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hybrids.recipes.recipe import Recipe, language_model

# the letters of a shared block's attention and MLP, for each block
BLOCKS = ("sf", "tu", "vw", "xy")


def zamba(
  *,
  width: int,
  depth: int,
  shared: Sequence[int],
  heads: int,
  inner: int,
  state: int = 16,
  ssm_heads: int = 2,
  dt_rank: int | None = None,
  norm_eps: float = 1e-5,
  tie: bool = True,
) -> dict[str, Any]:
  """Returns the sections of `depth` Mamba layers; before those numbered in `shared` stands the shared block.

  Args:
    ssm_heads: of Mamba; `dt_rank` is that of one of them.
  """
  rank = dt_rank or -(-width // 16)
  mamba = dict(name="mamba", state=state, groups=ssm_heads, dt_rank=ssm_heads * rank)
  return _model(width, depth, shared, mamba, [_block(width, heads, inner, {}, norm_eps)], norm_eps, tie)


def zamba2(
  *,
  width: int,
  depth: int,
  shared: Sequence[int],
  heads: int,
  inner: int,
  blocks: int = 2,
  rank: int = 128,
  adapted: str = "gate_proj|in_proj",
  state: int = 64,
  ssm_head_size: int = 64,
  groups: int = 1,
  dt_least: float = 1e-3,
  attention: Mapping[str, Any] | None = None,
  norm_eps: float = 1e-5,
  tie: bool = True,
) -> dict[str, Any]:
  """Returns the sections of `depth` Mamba-2 layers; before those numbered in `shared` stands a shared block.

  Args:
    blocks: how many shared blocks take turns.
    rank, adapted: of the changes at each use, and a pattern of the names of the changed maps.
    attention: further fields of the shared attention.
  """
  mamba2 = dict(name="mamba2", state=state, head_size=ssm_head_size, groups=groups, dt_least=dt_least)
  made = [_block(width, heads, inner, attention or {}, norm_eps) for _ in range(blocks)]
  return _model(width, depth, shared, mamba2, made, norm_eps, tie, lora=rank, lora_only=adapted)


def _block(width: int, heads: int, inner: int, attention: Mapping[str, Any], norm_eps: float) -> list[dict[str, Any]]:
  """Returns the branches of a shared block: attention from twice the width to the width, and an MLP."""
  softmax = dict(name="softmax", heads=heads, out_features=width, scale=(width / heads) ** -0.5, **attention)
  norm = dict(name="rms", eps=norm_eps)
  both = dict(name="with_embedding", norm=norm, mixer=softmax)
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
  return language_model(
    width=width,
    pattern="".join(uses.get(layer, "m") for layer in range(depth)),
    letters={"m": mixer, "g": dict(mixer=mixer, reads="both"), **letters},
    norm_eps=norm_eps,
    head=dict(tie=tie),
    shared="".join(letters),
    **stack,
  )


RECIPES = {
  "zamba_7b": Recipe(
    zamba,
    dict(width=3712, depth=76, shared=(2, *range(7, 76, 6)), heads=16, inner=14_848),
    7_232_490_496,
    within=0.04,
    vocab=32_000,
    length=4096,
  ),
  "zamba_toy": Recipe(zamba, dict(width=8, depth=4, shared=(1, 3), heads=2, inner=4, state=2, dt_rank=1), vocab=256),
  "zamba2_2.7b": Recipe(
    zamba2,
    dict(width=2560, depth=54, shared=(6, 12, 18, 24, 30, 36, 42, 47, 51), heads=32, inner=10_240),
    2_662_214_560,
    within=0.002,
    vocab=32_000,
    length=4096,
  ),
  "zamba2_toy": Recipe(
    zamba2,
    dict(width=8, depth=6, shared=(1, 3, 5), heads=2, inner=4, rank=1, state=2, ssm_head_size=4),
    vocab=256,
  ),
}
