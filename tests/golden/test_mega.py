"""Mega beside facebookresearch/mega."""

import jax
import jax.numpy as jnp
import pytest

from hybrids.mixer import build
from scripts.golden.mega import MEGA
from tests.golden.compare import check, read


@pytest.mark.parametrize("kind", MEGA)
def test_mega_is_the_authors(kind):
  given, *rest = read("mega", f"{kind}/")
  t, b, d = given["x"].shape
  inner, keys, options = given["v_proj.bias"].size, given["gamma"].shape[1], MEGA[kind]
  chunk = options["chunk_size"] if options["chunk_size"] > 0 else None
  sizes = {"state": given["move.gamma"].shape[1], "keys": keys, "inner": inner, "chunk": chunk}
  weights, both = options.get("attention_activation", "softmax"), options.get("bidirectional", False)
  mixer = build("mega", width=d, **sizes, position=options["rel_pos_bias"], weights=weights, bidirectional=both)

  def run(p):
    dense = {"v_proj": "v_proj", "m_proj": "mx_proj", "h_proj": "h_proj"}
    params = {our: {"kernel": p[f"{their}.weight"].T, "bias": p[f"{their}.bias"]} for our, their in dense.items()}
    # their delta is the paper's alpha, and the other way round
    averages = {"alpha": "delta", "delta": "alpha", "beta": "beta"}
    by_way = lambda z: z.reshape(2, d, -1) if both else z
    params |= {our: by_way(p[f"move.{their}"][..., 0]) for our, their in averages.items()}
    params |= {
      "gamma": by_way(p["move.gamma"]),
      "omega": p["move.omega"],
      "qk_scale": p["gamma"],
      "qk_shift": p["beta"],
    }
    if mixer.position == "rotary":
      params["bias"] = jnp.concatenate([p["rel_pos_bias.alpha"], p["rel_pos_bias.beta"]])
    else:
      # by distance into the past; theirs has one for what comes, too
      params["bias"] = p["rel_pos_bias.rel_pos_bias"][: None if both else chunk][::-1]
    variables, x = {"params": params}, p["x"].swapaxes(0, 1)
    if chunk is not None:
      return (mixer.apply(variables, x).swapaxes(0, 1),)
    y, state = mixer.apply(variables, x, mixer.init_state(b, t), method="prefill")
    step = lambda state, x: mixer.apply(variables, x, state, method="step")[::-1]
    _, steps = jax.lax.scan(step, mixer.init_state(b, t), p["x"])
    return y.swapaxes(0, 1), steps, state.h

  check(run, given, *rest)
