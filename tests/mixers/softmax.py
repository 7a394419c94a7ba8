"""Softmax attention: its cache, its window, its derived sizes."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention.softmax import Attention
from tests.initial import variables
from tests.stepped import stepped

YARN = dict(rule="yarn", factor=4.0, trained=300)
SMALL = {
  "": dict(heads=2, position="rope"),
  "alibi": dict(heads=4, kv_heads=2, head_size=3, position="alibi", softcap=2.0, gate="entry", qk_norm="all"),
  "full": dict(heads=2, mask="full", position="rope"),
  "persistent": dict(heads=2, window=4, persistent=2, position="rope"),
  "window": dict(heads=4, kv_heads=2, window=5, position="rope", bias="all", gate="head", scale=0.3),
  "xpos": dict(heads=2, head_size=8, position="xpos", rotary=0.5, qk_norm="head", bias="qkv"),
}
ORACLE = {
  "": dict(heads=2),
  "alibi": (dict(heads=4, kv_heads=2, head_size=3, position="alibi", softcap=1.5, gate="entry"), dict(size=3)),
  "alibi both ways": (dict(heads=3, head_size=2, mask="full", position="alibi", bias="out"), dict(size=2)),
  "full": dict(heads=2, mask="full", position="rope"),
  "window": dict(heads=4, kv_heads=2, window=5, position="rope", theta=50.0, bias="all", scale=0.3),
  "interpolated": dict(heads=1, position="rope", scaling=dict(rule="linear", factor=3.0)),
  "ntk": dict(heads=1, position="rope", scaling=dict(rule="ntk", factor=8.0), qk_norm="all"),
  "persistent": dict(heads=4, kv_heads=2, window=4, persistent=3, position="rope", qk_norm="head", gate="head"),
  "xpos": (
    dict(heads=2, head_size=8, position="xpos", rotary=0.5, layout="interleaved", qk_norm="head"),
    dict(size=8, turned=4),
  ),
  "yarn": (dict(heads=2, head_size=32, position="rope", bias="qkv", scaling=YARN), dict(size=32)),
  "yarn of half a head": (
    dict(heads=2, head_size=32, position="rope", rotary=0.5, scaling=YARN),
    dict(size=32, turned=16),
  ),
}
RESUMED = ("persistent", "window", "xpos")
REFUSED = [
  (dict(persistent=-1), "persistent=-1; it must be at least 0"),
  (dict(persistent=1, position="alibi"), "persistent=1 with position='alibi'"),
  (dict(heads=3), "heads=3 does not divide width=8"),
  (dict(heads=4, kv_heads=3), "kv_heads=3 does not divide heads=4"),
  (dict(kv_heads=3), "no number of heads up to 8 divides width=8 and is a multiple of 3"),
  (dict(heads=8, position="rope"), "heads=8 of width=8 have size 1; position='rope' turns pairs"),
  (dict(heads=2, position="xpos", rotary=0.75), "position='xpos' turns pairs, and rotary=0.75 of that is 3"),
  (dict(heads=2, position="rope", rotary=0.1), "rotary=0.1 of that is 0"),
  (dict(rotary=1.5), "rotary=1.5 is a share of a head's entries; it must be in (0, 1]"),
  (dict(width=0), "Attention: width=0; it must be at least 1"),
  (dict(softcap=0.0), "Attention: softcap=0.0; it must be above 0"),
  (dict(theta=-1.0), "Attention: theta=-1.0; it must be above 0"),
  (dict(norm_eps=-1e-6), "Attention: norm_eps=-1e-06; it must be at least 0"),
  (dict(head_size=0), "head_size=0; it must be at least 1"),
  (dict(position="rope", scaling=dict(rule="cubic")), "no rule 'cubic'; choose from"),
  (dict(position="alibi", scaling=dict(rule="ntk", factor=2.0)), "position='alibi' has none"),
  (dict(position="xpos", mask="full"), "position='xpos' looks back only"),
  (dict(qk_norm="layer"), "qk_norm='layer'; choose from ['none', 'head', 'all']"),
  (dict(bias="v"), "bias='v'; choose from"),
  (dict(cache_dtype="int4"), "cache_dtype='int4'; choose from ['float32', 'bfloat16', 'int8']"),
  (dict(heads=0), "heads=0; it must be at least 1"),
  (dict(window=0), "window=0; it must be at least 1"),
  (dict(window=3, mask="full"), "window=3 looks back only"),
  (dict(mask="causual"), "mask='causual'; choose from ['causal', 'full']"),
  (dict(position="learned"), "'learned' and 'sinusoidal' are for the model's own position"),
]
# Shared keys make a smaller cache.
STATES = [(dict(width=64, heads=8, kv_heads=2), {"kept/k": (1, 2, 100, 8)})]


def count(d, heads, kv_heads=None, head_size=None, gate="none", qk_norm="none", bias="none", persistent=0, **_):
  """Queries, out and gate, keys and values; biases; a norm of queries and one of keys; persistent tokens."""
  size = head_size or d // heads
  inner, kv = heads * size, (kv_heads or heads) * size
  biases = {"none": 0, "qkv": inner + 2 * kv, "out": d, "all": inner + 2 * kv + d}[bias]
  norms = {"none": 0, "head": 2 * size, "all": inner + kv}[qk_norm]
  gates = {"none": 0, "entry": inner, "head": heads}[gate]
  return d * (2 * inner + gates + 2 * kv + persistent) + biases + norms


X = jax.random.normal(jax.random.key(1), (2, 12, 8))


def ready(**kwargs):
  module = Attention(width=8, **kwargs)
  return module, variables(module, X)


@functools.partial(jax.jit, static_argnames=("module", "method"))
def run(module, variables, x, *state, method=None, **kwargs):
  method = method or ("prefill" if state else "__call__")
  return module.apply(variables, x, *state, method=method, **kwargs)


def test_tokens_beyond_the_cache_have_nan():
  """In their row alone, and in prefill as in steps; a document that fits is welcome in the same slots."""
  module, variables = ready(heads=2)
  y, state = run(module, variables, X, module.init_state(2, 8), lengths=jnp.array([9, 8]))
  assert np.isnan(y[0, 8]).all()
  assert np.isfinite(y[0, :8]).all()
  assert np.isfinite(y[1]).all()
  y, state = run(module, variables, X[:, 0], state, method="step")
  assert np.isnan(y).all()
  y, _ = run(module, variables, X[:, :4], state, reset=jnp.zeros((2, 4), bool).at[1, 0].set(True))
  assert np.isnan(y[0]).all()
  np.testing.assert_allclose(y[1], run(module, variables, X[:, :4])[1], atol=1e-6)


@pytest.mark.parametrize(
  "pieces", [(6, 4), (1,) * 10, *(pytest.param(cut, marks=pytest.mark.slow) for cut in ((10,), (4, 6), (3, 5, 2)))]
)
def test_what_outgrew_the_cache_is_nan_until_the_next_document_however_it_is_cut(pieces):
  """A cache of four, a document of eight tokens, one of two."""
  module, variables = ready(heads=2, position="rope")
  reset = jnp.zeros((2, 10), bool).at[:, 8].set(True)
  state, outputs, start = module.init_state(2, 4), [], 0
  for size in pieces:
    piece = slice(start, start + size)
    y, state = run(module, variables, X[:, piece], state, reset=reset[:, piece])
    outputs.append(y)
    start += size
  want = run(module, variables, X[:, :10], reset=reset).at[:, 4:8].set(jnp.nan)
  np.testing.assert_allclose(jnp.concatenate(outputs, axis=1), want, atol=1e-6)


@pytest.mark.parametrize("dtype, kept, unit", [("float32", 8, None), ("bfloat16", 2, None), ("int8", 1, 4)])
def test_in_double_precision_only_a_cache_of_floats_widens(dtype, kept, unit):
  """As the states of other mixers do; what was asked to be small stays small."""
  with jax.enable_x64(True):
    state = Attention(width=8, cache_dtype=dtype).init_state(1, 4)
  sizes = [leaf.dtype.itemsize for leaf in jax.tree.leaves(state.kept["k"])]
  assert sizes == [kept, unit][: 1 + (unit is not None)]


def test_lengths_beyond_the_tokens_count_no_further():
  module, variables = ready(heads=2)
  lengths = jnp.array([7, -3])
  _, state = run(module, variables, X[:, :5], module.init_state(2, 12), lengths=lengths)
  assert state.consumed.tolist() == [5, 0]


def test_a_window_outlives_any_cache():
  module, variables = ready(heads=2, window=3, position="rope")
  full = run(module, variables, X)
  state = module.init_state(2, 4)
  assert state.kept["k"].shape[2] == 3
  pieces = []
  for piece in (X[:, :5], X[:, 5:6], X[:, 6:]):
    y, state = run(module, variables, piece, state)
    pieces.append(y)
  np.testing.assert_allclose(jnp.concatenate(pieces, axis=1), full, atol=1e-6)


def test_a_window_sees_so_many_tokens():
  module, variables = ready(heads=1, window=3)
  seen = jax.jit(jax.jacobian(lambda x: module.apply(variables, x[None])[0, 9].sum()))(X[0])
  assert np.flatnonzero(np.abs(seen).max(axis=1)).tolist() == [7, 8, 9]


def test_state_by_mask_and_window():
  assert [Attention(width=8, **kwargs).STATE for kwargs in ({}, dict(window=2), dict(mask="full"))] == [
    "grows",
    "window",
    "none",
  ]
  with pytest.raises(ValueError, match="mask='full' sees later tokens, so it has no state"):
    Attention(width=8, mask="full").init_state(1, 4)


@pytest.mark.parametrize(
  "dtype, tolerance, window",
  [
    ("float32", 1e-6, None),
    ("int8", 0.02, 5),
    pytest.param("float32", 1e-6, 5, marks=pytest.mark.slow),
    pytest.param("int8", 0.02, None, marks=pytest.mark.slow),
    *(pytest.param("bfloat16", 0.02, window, marks=pytest.mark.slow) for window in (None, 5)),
  ],
)
def test_cached_attention_is_uncached_attention(dtype, tolerance, window):
  """To the rounding of the cache; and however the tokens are cut, to the same numbers."""
  module, variables = ready(heads=4, kv_heads=2, position="rope", window=window, cache_dtype=dtype)
  reset = jnp.zeros((2, 12), bool).at[0, 4].set(True)
  uncached = run(module, variables, X, reset=reset)
  cached, state = run(module, variables, X, module.init_state(2, 12), reset=reset)
  assert 0 < np.abs(cached - uncached).max() / np.abs(uncached).max() <= tolerance or dtype == "float32"
  np.testing.assert_allclose(cached, uncached, atol=tolerance * np.abs(uncached).max())
  y, halfway = run(module, variables, X[:, :7], module.init_state(2, 12), reset=reset[:, :7])
  rest, states = stepped(module, variables, X[:, 7:], halfway)
  np.testing.assert_allclose(jnp.concatenate([y, rest], axis=1), cached, atol=1e-6)
  assert jax.tree.map(lambda z: z.dtype, states[-1]) == jax.tree.map(lambda z: z.dtype, module.init_state(2, 12))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("slots, kwargs", [(600, {}), (1100, dict(kv_heads=2, window=1100))])
@pytest.mark.optimized
def test_a_loop_of_steps_copies_no_cache(batch, slots, kwargs):
  """Read from the compiled loop, in which every token would cost as much again; the cache is given away to it."""
  module = Attention(width=64, heads=4, position="rope", **kwargs)
  variables = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 1, 64))))

  @functools.partial(jax.jit, donate_argnums=2)
  def run(variables, x, state):
    step = lambda _, carry: module.apply(variables, *carry, method="step")
    return jax.lax.fori_loop(0, 8, step, (x, state))

  state = jax.eval_shape(lambda: module.init_state(batch, slots))
  lines = run.lower(variables, jnp.zeros((batch, 64)), state).compile().as_text().splitlines()
  groups = state.kept["k"].shape[1]
  shapes = [f"f32[{shape},{slots},16]" for shape in (f"{batch},{groups}", f"{batch * groups}")]
  of_cache = [line for line in lines if any(shape in line.partition(" = ")[2].partition("(")[0] for shape in shapes)]
  assert any(re.search(r" (scatter|dynamic-update-slice)\(", line) for line in of_cache)
  assert not [line for line in of_cache if re.search(r" (copy|transpose|select|concatenate)\(", line)]


def test_a_step_makes_no_floats_of_a_cache_of_integers():
  """Read from what is compiled for a CPU, which multiplies none: blocks of slots become floats one after another."""
  module = Attention(width=64, heads=4, kv_heads=2, cache_dtype="int8")
  variables = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 1, 64))))
  state = jax.eval_shape(lambda: module.init_state(3, 600))
  step = jax.jit(lambda variables, x, state: module.apply(variables, x, state, method="step"), donate_argnums=2)
  text = step.lower(variables, jnp.zeros((3, 64)), state).compile().as_text()
  wide = {int(np.prod([int(n) for n in shape.split(",")])) for shape in re.findall(r"f32\[([\d,]+)\]", text)}
  assert max(wide) < 3 * 2 * 600 * 16 / 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_token_of_an_earlier_document_that_is_not_finite_is_not_seen(dtype):
  """Its vectors stay in the cache, where weights of 0 meet them."""
  module, variables = ready(heads=2, cache_dtype=dtype)
  _, state = run(module, variables, X[:, :8].at[:, 5].set(jnp.nan), module.init_state(2, 12))
  reset = jnp.arange(2)[None].repeat(2, 0) == 0
  _, state = run(module, variables, X[:, 8:10], state, reset=reset)
  y, _ = run(module, variables, X[:, 10], state, method="step")
  _, clean = run(module, variables, X[:, 8:10], module.init_state(2, 12))
  np.testing.assert_array_equal(y, run(module, variables, X[:, 10], clean, method="step")[0])


@pytest.mark.parametrize("dtype, size", [("float32", 4), ("bfloat16", 2), ("int8", 1)])
def test_a_token_takes_two_vectors_for_each_head_of_keys(dtype, size):
  """2 kv_heads k numbers; with int8 also a unit of four bytes for each vector."""
  module = Attention(width=64, heads=8, kv_heads=2, cache_dtype=dtype)
  state = jax.eval_shape(lambda: module.init_state(1, 1000))
  kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.kept))
  assert kept == 1000 * 2 * 2 * (8 * size + (4 if dtype == "int8" else 0))


def test_int8_keeps_vectors_to_half_a_unit():
  """However different in size; a unit is 1/127 of the largest entry."""
  module, variables = ready(heads=2, cache_dtype="int8")
  spread = X * jnp.logspace(-20, 4, 12)[:, None]
  states = [run(m, variables, spread, m.init_state(2, 12))[1] for m in (module, Attention(width=8, heads=2))]
  for packed, exact in zip(*(state.kept.values() for state in states), strict=True):
    np.testing.assert_array_equal(np.abs(packed.integers).max(axis=-1), 127)
    error = np.abs(packed.integers * packed.unit[..., None] - exact).max(axis=-1)
    assert (error <= 0.51 * packed.unit).all()


def test_xpos_is_fine_a_million_tokens_from_the_start():
  """Keys are cached as they are; scaled by their positions, as published, they overflow past 36,000."""
  module, variables = ready(heads=2, window=4, position="xpos")
  late = module.init_state(2, 4)._replace(consumed=jnp.full((2,), 10**6, jnp.int32))
  y, _ = run(module, variables, X, late)
  # single precision knows angles of 10^6 to 0.06
  np.testing.assert_allclose(y, run(module, variables, X), atol=0.1)


@pytest.mark.parametrize(
  "dtype, masks, fused",
  [
    ("bfloat16", dict(lengths=jnp.array([9, 12])), True),
    ("bfloat16", dict(reset=jnp.zeros((2, 12), bool)), False),
    ("float32", {}, False),
  ],
)
def test_a_gpu_gets_cudnn_for_single_documents_in_bfloat16(monkeypatch, dtype, masks, fused):
  """Lengths are no obstacle: who is there sees nobody past them. Lowered, for want of a GPU never run."""
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  monkeypatch.setattr("kernels.attention.cudnn.has_kernels", lambda: True)
  monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)
  module = Attention(width=32, heads=4, kv_heads=2, position="rope", window=5)
  x = jnp.zeros((2, 12, 32), dtype)
  variables = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), x))
  lowered = jax.jit(module.apply).trace(variables, x, **masks).lower(lowering_platforms=("cuda",))
  assert ("__cudnn$fmha" in lowered.as_text()) == fused


def test_a_head_may_have_any_size():
  module, variables = ready(heads=3, head_size=6)
  assert variables["params"]["q_proj"]["kernel"].shape == (8, 18)
  assert variables["params"]["out_proj"]["kernel"].shape == (18, 8)


def test_biases_stand_where_they_are_asked_for():
  for bias, where in (("none", ""), ("qkv", "qkv"), ("out", "o"), ("all", "qkvo")):
    _, variables = ready(heads=2, bias=bias)
    found = "".join(name for name in ("q", "k", "v") if "bias" in variables["params"][f"{name}_proj"])
    assert found + "o" * ("bias" in variables["params"]["out_proj"]) == where


def test_a_closed_gate_lets_nothing_through():
  module, variables = ready(heads=2, gate="entry")
  variables["params"]["gate_proj"]["kernel"] = jnp.full((8, 8), -1e3)
  np.testing.assert_allclose(run(module, variables, jnp.abs(X)), 0, atol=1e-6)


@pytest.mark.parametrize("width, heads", [(512, 8), (768, 8), (48, 8), (8, 4), (6, 3), (50, 5), (2, 1), (7, 7), (1, 1)])
def test_derived_heads_divide_the_width_and_leave_pairs(width, heads):
  assert Attention(width=width)._sizes == (heads, heads, width // heads)
