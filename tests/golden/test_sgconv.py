"""SGConv beside ctlllll/SGConv."""

import jax.numpy as jnp
import pytest

from hybrids.mixer import build
from scripts.golden.sgconv import MODES
from tests.golden.compare import check, entries_of, near, read


@pytest.mark.parametrize("mode", MODES)
def test_sgconv_is_the_authors(mode):
  """With the norm of the kernel before training."""
  given, *rest = read("sgconv", f"{mode}/")
  _, d, taps = given["kernel_list.0"].shape
  mixer = build("sgconv", width=d, taps=taps, max_len=32, activation="none", **MODES[mode])

  def params(p):
    scales = jnp.concatenate([p[f"kernel_list.{i}"] for i in range(4)])
    return {"scales": scales, "D": p["D"][0]} | ({"decay_rate": p["decay"]} if mixer.decay == "learned" else {})

  first, norm = entries_of("sgconv", f"{mode}/first/"), entries_of("sgconv", f"{mode}/norm")[""][0, :, 0]
  by_token = lambda x: jnp.swapaxes(x, 1, 2)
  _, made = mixer.apply({"params": params(first)}, by_token(given["x"]), mutable="buffers")
  near(made["buffers"]["norm"], norm, "norm")

  def run(p):
    return (by_token(mixer.apply({"params": params(p), "buffers": {"norm": norm}}, by_token(p["x"]))),)

  check(run, given, *rest)
