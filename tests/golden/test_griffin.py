"""The recurrent block and the local attention of Griffin beside google-deepmind/recurrentgemma."""

import jax.numpy as jnp
import pytest

from hybrids.mixer import build
from tests.golden.compare import check, dense, read


@pytest.mark.parametrize("kind", ["empty", "state"])
def test_rglru_is_the_authors(kind):
  """From an empty state, with a second document in one row; from another state, in parallel where theirs steps."""
  given, *rest = read("rglru", f"{kind}/")
  b, t, d = given["x"].shape
  heads, size, _ = given["rg_lru.a_gate.w"].shape
  mixer = build("rglru", width=d, inner=heads * size, heads=heads)
  reset = jnp.zeros((b, t), bool).at[1, 6].set(True)

  def run(p):
    params = {f"{name}_proj": dense(p, f"linear_{name}") for name in ("x", "y", "out")}
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


def test_local_attention_is_the_authors():
  """At once, with a second document in one row; and some tokens at once and the others one by one, past the window."""
  given, *rest = read("local_attention")
  b, t, d = given["x"].shape
  # theirs sees as many tokens before the current one
  mixer = build("local", width=d, heads=2, window=4 + 1)
  reset = jnp.zeros((b, t), bool).at[1, 6].set(True)

  def run(p):
    maps = {f"{name}_proj": dense(p, f"proj_{name}") for name in "qkv"}
    variables = {"params": maps | {"out_proj": dense(p, "proj_final")}}
    y, state = mixer.apply(variables, p["x"][:, :9], mixer.init_state(b, t), reset=reset[:, :9], method="prefill")
    outputs = [y]
    for i in range(9, t):
      y, state = mixer.apply(variables, p["x"][:, i], state, method="step")
      outputs.append(y[:, None])
    return mixer.apply(variables, p["x"], reset=reset), jnp.concatenate(outputs, axis=1)

  check(run, given, *rest)
