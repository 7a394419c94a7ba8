"""FoX: what its gates forget, exactly and however long ago; its small parts; sizes of the state."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention.fox import FoX
from attention.softmax import Attention
from tests.initial import variables

PRO = dict(gate="entry", out_norm="head", qk_norm="head", shift="kv")
SMALL = {
  "": dict(heads=2),
  "pro": dict(heads=4, kv_heads=2, head_size=3, window=5, bias="all") | PRO,
}
ORACLE = {
  "": dict(heads=2),
  "pro": (dict(heads=4, kv_heads=2, head_size=3) | PRO, dict(size=3)),
  "window": dict(heads=4, kv_heads=2, window=4, position="rope", theta=50.0, shift="k", gate="head", scale=0.3),
}
RESUMED = ("", "pro", "window")
REFUSED = [
  (dict(mask="full"), "FoX: mask='full'; with forget gates it is 'causal'"),
  (dict(softcap=1.0), "FoX: softcap=1.0; with forget gates it is None"),
  (dict(persistent=2), "FoX: persistent=2; with forget gates it is 0"),
  (dict(position="alibi"), "FoX: position='alibi'; forget gates fade scores already: choose 'none' or 'rope'"),
  (dict(shift="q"), "shift='q'; choose from ['none', 'k', 'v', 'kv']"),
  (dict(out_norm="all"), "out_norm='all'; choose from ['none', 'head']"),
]
INITIAL = [(dict(heads=2), {"f_proj/bias": np.zeros(2)})]
# Two numbers a head and token beside keys and values.
STATES = [
  (dict(width=64, heads=8, kv_heads=2), {"cache/kept/k": (1, 2, 100, 8), "cache/kept/sums": (1, 2, 100, 8)}),
  (dict(width=64, heads=8, shift="kv"), {"sums": (1, 8, 2), "last/k": (1, 64), "last/v": (1, 64)}),
]


def count(d, heads, kv_heads=None, head_size=None, gate="none", out_norm="none", shift="none", bias="none", **_):
  """Queries and out, keys and values, gates of forgetting and of outputs, shifts, norms, biases."""
  size, groups = head_size or d // heads, kv_heads or heads
  inner, kv = heads * size, groups * size
  biases = {"none": 0, "all": inner + 2 * kv + d}[bias]
  gates = {"none": 0, "entry": inner, "head": heads}[gate]
  shifts = groups * len(shift.replace("none", ""))
  # of outputs, and of queries and keys
  norms = {"none": 0, "head": inner + 2 * size}[out_norm]
  return d * (2 * inner + 2 * kv + heads + gates + shifts) + heads + biases + norms


X = jax.random.normal(jax.random.key(1), (2, 12, 8))


def ready(bias=0.0, **fields):
  """Its gates are wide open with a large bias, and closed with one far below 0."""
  module = FoX(width=8, **fields)
  made = variables(module, X)
  made["params"]["f_proj"]["bias"] += bias
  return module, made


@functools.partial(jax.jit, static_argnames=("module", "method"))
def run(module, variables, x, *state, method=None):
  return module.apply(variables, x, *state, method=method or ("prefill" if state else "__call__"))


def test_without_forgetting_it_is_softmax():
  fields = dict(heads=2, position="rope", qk_norm="head")
  module, made = ready(bias=1e3, **fields)
  others = {name: value for name, value in made["params"].items() if name != "f_proj"}
  want = run(Attention(width=8, **fields), {"params": others}, X)
  np.testing.assert_allclose(run(module, made, X), want, atol=1e-6)


def test_a_closed_gate_leaves_the_token_itself():
  module, made = ready(bias=-1e3, heads=2)
  kernels = (made["params"][name]["kernel"] for name in ("v_proj", "out_proj"))
  want = np.linalg.multi_dot([np.asarray(X).reshape(-1, 8), *kernels]).reshape(X.shape)
  np.testing.assert_allclose(run(module, made, X), want, atol=1e-6)


@pytest.mark.parametrize("tokens", [10**6, 2**31 - 20])
def test_a_window_forgets_as_well_after_sums_that_no_float32_holds(tokens):
  module, made = ready(bias=-1.0, heads=2, window=4)
  state = module.init_state(2, 4)
  late = state._replace(
    cache=state.cache._replace(consumed=state.cache.consumed + tokens),
    sums=jnp.broadcast_to(jnp.array([-1.3 * tokens, 0.4]), state.sums.shape),
  )
  for z in (late, state):
    y, after = run(module, made, X[:, :9], z)
    ys = [y]
    for t in range(9, 12):
      y, after = run(module, made, X[:, t], after, method="step")
      ys.append(y[:, None])
    np.testing.assert_allclose(jnp.concatenate(ys, axis=1), run(module, made, X), atol=1e-5)


def test_a_gate_that_is_not_finite_reaches_those_who_see_its_token():
  """In a window: five tokens of one row, in one call as in pieces; the token's key and value are finite."""
  module, made = ready(heads=2, window=5)
  x = X.at[:, :, 0].set(0).at[0, 3, 0].set(1e30)
  for name, entry in dict(q_proj=0, k_proj=0, v_proj=0, f_proj=-1e20).items():
    made["params"][name]["kernel"] = made["params"][name]["kernel"].at[0].set(entry)
  y = run(module, made, x)
  first, state = run(module, made, x[:, :5], module.init_state(2, 5))
  second, state = run(module, made, x[:, 5:11], state)
  last, _ = run(module, made, x[:, 11], state, method="step")
  spoilt = np.isnan(y).any(axis=-1)
  assert np.flatnonzero(spoilt[0]).tolist() == [3, 4, 5, 6, 7]
  assert not spoilt[1].any()
  np.testing.assert_allclose(jnp.concatenate([first, second, last[:, None]], axis=1), y, atol=1e-6)


def test_gradients_of_gates_survive_bfloat16():
  """They are differences of sums over all later tokens, in bfloat16 with an error of a third of them."""
  module, made = ready(heads=2)
  x, weights = jax.random.normal(jax.random.key(2), (2, 1, 1024, 8))
  loss = jax.jit(jax.grad(lambda variables, x: jnp.sum(module.apply(variables, x).astype(jnp.float32) * weights)))
  wide, narrow = (loss(made, z)["params"]["f_proj"]["kernel"] for z in (x, x.astype(jnp.bfloat16)))
  assert jnp.linalg.norm(wide - narrow) < 0.02 * jnp.linalg.norm(wide)
