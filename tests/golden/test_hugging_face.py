"""Mamba as in three models, Mamba-2 and LFM2's convolution beside the library transformers."""

import pytest

from hybrids.mixer import build
from scripts.golden.hugging_face import LAYERS
from tests.golden.compare import conv, dense, same


@pytest.mark.parametrize("kind, norms", [("mamba", "none"), ("falcon", "weightless"), ("jamba", "learned")])
def test_mamba_is_the_one_of_transformers(kind, norms):
  def params(p):
    found = {name: dense(p, name) for name in ("in_proj", "x_proj", "dt_proj", "out_proj")}
    if norms == "learned":
      found |= {f"{ours}_norm": {"scale": p[f"{ours.lower()}_layernorm.weight"]} for ours in ("dt", "B", "C")}
    return found | {"conv": conv(p, "conv1d"), "A_log": p["A_log"], "D": p["D"]}

  same(build("mamba", width=6, state=3, dt_rank=2, norms=norms), params, "hugging_face", f"{kind}/")


def test_mamba_2_is_the_one_of_transformers():
  """With two groups and a step that is clipped on both sides."""
  options = LAYERS["mamba2"][2]
  sizes = {name: options[theirs] for name, theirs in (("state", "state_size"), ("head_size", "head_dim"))}
  least, most = options["time_step_limit"]

  def params(p):
    found = {name: dense(p, name) for name in ("in_proj", "out_proj")} | {"conv": conv(p, "conv1d")}
    return found | {name: p[name] for name in ("A_log", "D", "dt_bias")} | {"gated_norm": {"scale": p["norm.weight"]}}

  same(build("mamba2", width=6, groups=2, dt_least=least, dt_most=most, **sizes), params, "hugging_face", "mamba2/")


def test_gated_conv_is_the_one_of_transformers():
  params = lambda p: {"in_proj": dense(p, "in_proj"), "out_proj": dense(p, "out_proj"), "conv": conv(p, "conv")}
  same(build("gated_conv", width=6), params, "hugging_face", "lfm2/")
