"""The recurrent block of Griffin beside google-deepmind/recurrentgemma."""

import jax.numpy as jnp
import pytest

from hybrids.mixer import build
from tests.golden.compare import check, read


@pytest.mark.parametrize("kind", ["empty", "state"])
def test_rglru_is_the_authors(kind):
  """From an empty state, with a second document in one row; from another state, in parallel where theirs steps."""
  given, *rest = read("rglru", f"{kind}/")
  b, t, d = given["x"].shape
  heads, size, _ = given["rg_lru.a_gate.w"].shape
  mixer = build("rglru", width=d, inner=heads * size, heads=heads)
  reset = jnp.zeros((b, t), bool).at[1, 6].set(True)

  def run(p):
    params = {name: {"kernel": p[f"linear_{name[:-5]}.weight"].T} for name in ("x_proj", "y_proj", "out_proj")}
    for name in params:
      params[name]["bias"] = p[f"linear_{name[:-5]}.bias"]
    for name in ("a_gate", "input_gate"):
      params[name] = {"kernel": p[f"rg_lru.{name}.w"], "bias": p[f"rg_lru.{name}.b"].ravel()}
    params |= {"conv": {"kernel": p["conv_1d.w"], "bias": p["conv_1d.b"]}, "a_param": p["rg_lru.a_param"]}
    state = mixer.init_state(b, t)
    if kind == "state":
      state = state._replace(h=p["h"], taps=p["taps"], started=jnp.ones_like(state.started))
    resets = {"reset": reset} if kind == "empty" else {}
    y, last = mixer.apply({"params": params}, p["x"], state, method="prefill", **resets)
    return y, last.h, last.taps

  check(run, given, *rest)
