"""Agreement with numbers of torchscale's retention and of Based's linear attention."""

import pytest

from attention.recurrent.based import Based
from attention.recurrent.retnet import RetNet
from tests.golden.compare import check, read


def dense(p, **names):
  """Our kernels from torch's weights."""
  return {f"{ours}_proj": {"kernel": p[f"{theirs}.weight"].T} for ours, theirs in names.items()}


@pytest.mark.parametrize("form, eps", [("parallel", 1e-9), ("chunks", 1e-9), ("steps", 1e-2)])
def test_retnet_is_torchscales_retention(form, eps):
  """Its three forms agree with each other only as far as its norm's eps is nothing; step by step it is ours at any."""
  module = RetNet(width=8, heads=2, norm_eps=eps)

  def run(p):
    params = dense(p, q="q_proj", k="k_proj", v="v_proj", g="g_proj", out="out_proj")
    return (module.apply({"params": params}, p["x"]),)

  check(run, *read("retention", f"{form}/"))


def test_based_is_the_authors_linear_attention():
  module = Based(width=8, heads=2, key_size=3)

  def run(p):
    params = dense(p, q="proj_q", k="proj_k", v="proj_v", out="out_proj")
    return (module.apply({"params": params}, p["x"]),)

  check(run, *read("based"))
