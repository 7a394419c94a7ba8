"""RWKV-4, -6 (Finch) and -7 (Goose): time mixing and channel mixing by turns, behind a norm of the embedding.

Departs: the first layer of RWKV-7 has the map of low rank that mixes its values with the first layer's as all others
do. It is not used and not counted in the published numbers, which are width (2 v_rank + 1) below ours.

Source: Peng et al. 2023, arXiv:2305.13048, table 2 (RWKV-4, tokenizer of GPT-NeoX); 2024, arXiv:2404.05892 (RWKV-6);
2025, arXiv:2503.14456 (RWKV-7); the latter two with the tokenizer of RWKV's World models.
"""

from typing import Any

from hybrids.recipes.recipe import Recipe, language_model


def rwkv4(*, width: int, depth: int, inner: int | None = None, norm_eps: float = 1e-5) -> dict[str, Any]:
  """Returns the sections of RWKV-4 with `depth` blocks."""
  return _model(width, depth, dict(name="rwkv4"), dict(name="rwkv_channel", version=4, inner=inner), norm_eps)


def rwkv6(
  *,
  width: int,
  depth: int,
  inner: int | None = None,
  head_size: int = 64,
  mix_rank: int = 32,
  decay_rank: int = 64,
  norm_eps: float = 1e-5,
) -> dict[str, Any]:
  """Returns the sections of RWKV-6 with `depth` blocks."""
  time = dict(name="rwkv6", head_size=head_size, mix_rank=mix_rank, decay_rank=decay_rank)
  return _model(width, depth, time, dict(name="rwkv_channel", version=6, inner=inner), norm_eps)


def rwkv7(
  *,
  width: int,
  depth: int,
  inner: int | None = None,
  head_size: int = 64,
  w_rank: int | None = None,
  a_rank: int | None = None,
  v_rank: int | None = None,
  g_rank: int | None = None,
  norm_eps: float = 1e-5,
) -> dict[str, Any]:
  """Returns the sections of RWKV-7 with `depth` blocks."""
  time = dict(name="rwkv7", head_size=head_size, w_rank=w_rank, a_rank=a_rank, v_rank=v_rank, g_rank=g_rank)
  return _model(width, depth, time, dict(name="rwkv_channel", version=7, inner=inner), norm_eps)


def _model(width: int, depth: int, time: dict[str, Any], channel: dict[str, Any], norm_eps: float) -> dict[str, Any]:
  return language_model(
    width=width,
    pattern="tc",
    depth=2 * depth,
    letters={"t": time, "c": channel},
    norm="layer",
    norm_eps=norm_eps,
    embed=dict(norm=dict(name="layer", eps=norm_eps)),
    head=dict(tie=False),
  )


PILE: dict[str, Any] = dict(vocab=50_277, length=1024)
WORLD: dict[str, Any] = dict(vocab=65_536, length=4096)


def goose(width: int, depth: int, w: int, a: int, v: int, g: int) -> dict[str, Any]:
  """Returns the fields of a released RWKV-7 with the ranks of its four maps."""
  return dict(width=width, depth=depth, w_rank=w, a_rank=a, v_rank=v, g_rank=g)


RECIPES = {
  "rwkv4_169m": Recipe(rwkv4, dict(width=768, depth=12), 169_342_464, **PILE),
  "rwkv4_430m": Recipe(rwkv4, dict(width=1024, depth=24), 430_397_440, **PILE),
  "rwkv4_1.5b": Recipe(rwkv4, dict(width=2048, depth=24), 1_515_106_304, **PILE),
  "rwkv4_3b": Recipe(rwkv4, dict(width=2560, depth=32), 2_984_627_200, **PILE),
  "rwkv4_7b": Recipe(rwkv4, dict(width=4096, depth=32), 7_392_649_216, **PILE),
  "rwkv4_14b": Recipe(rwkv4, dict(width=5120, depth=40), 14_150_000_000, within=0.001, **PILE),
  "rwkv4_toy": Recipe(rwkv4, dict(width=8, depth=2), vocab=256),
  "rwkv6_1.6b": Recipe(rwkv6, dict(width=2048, depth=24), 1_600_000_000, within=0.01, **WORLD),
  "rwkv6_3b": Recipe(rwkv6, dict(width=2560, depth=32), 3_100_000_000, within=0.01, **WORLD),
  "rwkv6_7b": Recipe(
    rwkv6, dict(width=4096, depth=32, mix_rank=64, decay_rank=128), 7_600_000_000, within=0.01, **WORLD
  ),
  "rwkv6_toy": Recipe(rwkv6, dict(width=8, depth=2, head_size=4, mix_rank=2, decay_rank=2), vocab=256),
  "rwkv7_0.1b": Recipe(rwkv7, goose(768, 12, 64, 64, 32, 128), 191_034_624, within=3e-4, **WORLD),
  "rwkv7_0.4b": Recipe(rwkv7, goose(1024, 24, 64, 64, 32, 128), 450_767_872, within=3e-4, **WORLD),
  "rwkv7_1.5b": Recipe(rwkv7, goose(2048, 24, 96, 96, 64, 256), 1_527_404_544, within=3e-4, **WORLD),
  "rwkv7_2.9b": Recipe(rwkv7, goose(2560, 32, 96, 96, 64, 320), 2_947_735_040, within=3e-4, **WORLD),
  "rwkv7_toy": Recipe(rwkv7, dict(width=8, depth=2, head_size=4, w_rank=2, a_rank=2, v_rank=2, g_rank=2), vocab=256),
}
