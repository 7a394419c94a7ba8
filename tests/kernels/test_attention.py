import functools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention.efficient import unordered
from kernels import cpp
from kernels.attention import IMPLS, WEIGHTS, attention, step, xla
from kernels.attention.cpp import SOURCE
from kernels.attention.visible import EVERYONE
from tests.kernels.compare import DTYPES, QUICK, TOLERANCE, assert_close, draw, values_and_gradients
from tests.refused import refused

B, H, G, K, P = 2, 4, 2, 5, 3
HERE = [name for name in IMPLS if name not in ("cudnn", "splash")]
WITH_ALL = [name for name in HERE if name != "cpp"]  # settings, and dtypes
FAST = [name for name in WITH_ALL if name != "reference"]
SLOPES, DECAYS = (0.5, 0.0, 0.1, 0.02), (-0.3, -0.05, 0.0, -0.3, -1.0)
# queries, keys, segments and empty slots or none, settings
CASES = [
  (1, 40, True, {}),
  (63, 63, False, {}),
  (63, 100, True, {"window": 7}),
  (100, 100, True, {"softcap": 2.0, "scale": 0.7}),
  (40, 63, True, {"mask": "full", "window": 9}),
  (63, 100, True, {"weights": "relu2"}),
  (40, 63, True, {"weights": "laplace", "mask": "full", "softcap": 2.0}),
  (63, 100, True, {"slopes": SLOPES, "softcap": 2.0}),
  (41, 63, False, {"slopes": SLOPES, "mask": "full"}),
  (63, 100, True, {"decays": DECAYS, "window": 40}),
  (37, 101, False, {"decays": DECAYS, "softcap": 2.0}),
]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
  """Several blocks of queries and of keys, the last ones ragged."""
  monkeypatch.setattr(xla, "BLOCKS", {"cpu": (24, 32), "accelerator": (24, 32)})


@pytest.fixture(autouse=True)
def library(request):
  """Skips the cases of the kernel in C++, with the reason, where it cannot be built."""
  case = getattr(request.node, "callspec", types.SimpleNamespace(params={}))
  if case.params.get("impl") == "cpp" and (reason := cpp.why_not(SOURCE)):
    pytest.skip(reason)


def arrays(t, s, dtype="float32"):
  rng = np.random.default_rng(t)
  return tuple(draw(rng, shape, dtype) for shape in ((B, t, H, K), (B, s, G, K), (B, s, G, P)))


def places(t, s, segments):
  """The queries are the last tokens of the keys; two documents a row, empty slots, and a query without a place."""
  k_position = np.broadcast_to(np.arange(s), (B, s))
  where = {"q_position": k_position[:, s - t :], "k_position": k_position}
  if segments:
    k_segment = np.where(k_position < np.array([[s // 2], [s - 5]]), 0, 3)
    where["q_segment"] = np.array(k_segment[:, s - t :])
    where["q_segment"][1, t // 2] = -1
    where["k_segment"] = np.where(k_position % 11 == 4, -1, k_segment)
  return where


def plain(impl, **settings):
  return lambda q, k, v, **where: (attention(q, k, v, impl=impl, **settings, **where),)


@functools.cache
def op(impl, **settings):
  return jax.jit(plain(impl, **settings), compiler_options=QUICK)


def spoil(given, where):
  """NaN wherever there is no token."""
  nan = lambda z, there: np.where(there[..., None, None], z, np.asarray(np.nan, z.dtype))
  q, k, v = given
  there = where["k_segment"] >= 0
  return nan(q, where["q_segment"] >= 0), nan(k, there), nan(v, there)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("t, s, segments, settings", CASES)
@pytest.mark.parametrize("impl", FAST)
def test_implementations_equal_the_reference(impl, t, s, segments, settings, dtype):
  with jax.enable_x64(dtype == "float64"):
    given, where = arrays(t, s, dtype), places(t, s, segments)
    want = values_and_gradients(plain("reference", **settings), given, **where)
    given = spoil(given, where) if segments else given
    assert_close(values_and_gradients(plain(impl, **settings), given, **where), want, TOLERANCE[dtype])


def test_the_definition_is_softmax():
  q, k, v = arrays(6, 9)
  (y,) = op("reference", window=4)(q, k, v, **places(6, 9, False))
  for b, t, h in np.ndindex(B, 6, H):
    seen = slice(max(0, t + 3 - 3), t + 4)  # query t stands at t + 3
    weights = np.exp(k[b, seen, h // 2] @ q[b, t, h] / np.sqrt(K))
    np.testing.assert_allclose(y[b, t, h], weights @ v[b, seen, h // 2] / weights.sum(), rtol=1e-4, atol=1e-5)


def test_slopes_and_decays_by_hand():
  q, k, v = arrays(6, 9)
  for settings in ({"slopes": SLOPES}, {"decays": DECAYS}):
    (y,) = op("reference", scale=1.0, **settings)(q, k, v, **places(6, 9, False))
    for b, t, h in np.ndindex(B, 6, H):
      back = t + 3 - np.arange(t + 4)  # query t stands at t + 3
      scores = (np.exp(np.outer(back, settings.get("decays", [0] * K))) * k[b, : t + 4, h // 2]) @ q[b, t, h]
      weights = np.exp(scores - settings.get("slopes", [0] * H)[h] * back)
      np.testing.assert_allclose(y[b, t, h], weights @ v[b, : t + 4, h // 2] / weights.sum(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("impl", WITH_ALL)
def test_decays_do_not_overflow_far_from_the_start(impl):
  """Nor does a key's position that nobody asked about; the keys of tokens long gone have no weight left."""
  given, where = arrays(6, 9), places(6, 9, True)
  where = {name: z.copy() if "segment" in name else z + 10**7 for name, z in where.items()}
  where["k_position"] = np.where(np.arange(9) == 0, -(10**7), where["k_position"])
  y, gradients = values_and_gradients(plain(impl, decays=DECAYS), given, **where)
  for z in (*y, *gradients):
    assert np.isfinite(z).all()


@pytest.mark.parametrize("impl", HERE)
def test_tokens_without_positions_stand_at_their_indices(impl):
  given, where = arrays(40, 40), places(40, 40, False)
  np.testing.assert_array_equal(op(impl, window=7)(*given)[0], op(impl, window=7)(*given, **where)[0])


@pytest.mark.parametrize("weights", ["relu2", "laplace"])
def test_pointwise_weights_know_one_score_each(weights):
  q, k, v = arrays(6, 9)
  (y,) = op("reference", weights=weights, scale=1.0)(q, k, v, **places(6, 9, False))
  # the distribution function of a normal number of mean sqrt(1/2) and variance 1/(4 pi)
  normal = lambda s: 0.5 * (1 + math.erf((s - 0.5**0.5) / math.sqrt(2 / (4 * math.pi))))
  f = {"relu2": lambda s: max(s, 0) ** 2, "laplace": normal}[weights]
  for b, t, h in np.ndindex(B, 6, H):
    expected = sum(f(float(k[b, s, h // 2] @ q[b, t, h])) * v[b, s, h // 2] for s in range(t + 4))
    np.testing.assert_allclose(y[b, t, h], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("impl", WITH_ALL)
def test_rows_that_see_nothing_are_zero_with_zero_gradients(impl, weights):
  given = arrays(6, 9)
  where = places(6, 9, False) | {"q_segment": np.full((B, 6), 1), "k_segment": np.zeros((B, 9), int)}
  y, gradients = values_and_gradients(plain(impl, weights=weights), given, **where)
  for z in (*y, *gradients):
    assert not np.asarray(z).any(), "something got through"


@pytest.mark.parametrize("impl", HERE)
def test_a_cotangent_where_there_is_no_query_goes_nowhere(impl):
  given = arrays(6, 9)
  where = places(6, 9, False) | {"q_segment": np.zeros((B, 6), int), "k_segment": np.zeros((B, 9), int)}
  where["q_segment"][:, 2] = -1

  @functools.partial(jax.jit, compiler_options=QUICK)
  def gradients(given, where):
    y, pull = jax.vjp(lambda *z: plain(impl)(*z, **where)[0], *given)
    return pull(y.at[:, 2].set(jnp.nan))

  for z in gradients(given, where):
    assert np.isfinite(z).all()


@pytest.mark.parametrize("impl", HERE)
def test_only_differences_of_positions_matter(impl):
  given, where = arrays(6, 9), places(6, 9, False)
  late = {name: z + 10**6 for name, z in where.items()}
  np.testing.assert_array_equal(op(impl, window=4)(*given, **where)[0], op(impl, window=4)(*given, **late)[0])


@pytest.mark.parametrize("impl", HERE)
def test_keys_of_everyone_are_seen_from_everywhere(impl):
  """Whatever the segment, the window and the position of the query; gradients as those of the definition."""
  (q, k, v), where = arrays(63, 100), places(63, 100, True)
  where["k_segment"][:, 40:42] = EVERYONE
  settings = dict(window=5)
  want = values_and_gradients(plain("reference", **settings), (q, k, v), **where)
  assert_close(values_and_gradients(plain(impl, **settings), (q, k, v), **where), want, TOLERANCE["float32"])
  (y,) = op(impl, **settings)(q, k, v, **where)
  for b, t, h in np.ndindex(B, 63, H):
    place = t + 37
    near = [s for s in range(place - 4, place + 1) if where["k_segment"][b, s] == where["q_segment"][b, t]]
    seen = sorted({*near, 40, 41})
    weights = np.exp(k[b, seen, h // 2] @ q[b, t, h] / np.sqrt(K))
    there = where["q_segment"][b, t] >= 0
    np.testing.assert_allclose(y[b, t, h], there * (weights @ v[b, seen, h // 2]) / weights.sum(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("impl", HERE)
def test_large_scores_stay_finite(impl):
  q, k, v = arrays(6, 9)
  y, gradients = values_and_gradients(plain(impl), (1e4 * q, k, v), **places(6, 9, False))
  for z in (*y, *gradients):
    assert np.isfinite(z).all()


@pytest.mark.parametrize("impl", WITH_ALL)
def test_bfloat16_comes_back(impl):
  given, where = arrays(6, 9), places(6, 9, False)
  (exact,) = op(impl)(*given, **where)
  (y,) = op(impl)(*(z.astype(jnp.bfloat16) for z in given), **where)
  assert y.dtype == jnp.bfloat16
  np.testing.assert_allclose(y.astype(np.float32), exact, atol=0.05)
  # a query may be of lower precision than the cache
  (y,) = op(impl)(given[0].astype(jnp.bfloat16), *given[1:], **where)
  assert y.dtype == jnp.bfloat16


STEPS = [({}, False), ({"window": 7}, True), ({"softcap": 2.0}, True), ({"slopes": SLOPES}, True)]


@pytest.mark.parametrize("slots", [16, 10**9])
@pytest.mark.parametrize("settings, parts", STEPS)
def test_a_step_is_attention_of_one_query(monkeypatch, settings, parts, slots):
  """Where the first slots alone are read because the rest are empty, and where all are; keys of one part or of two."""
  monkeypatch.setattr(step, "SLOTS", slots)
  q, k, v = map(jnp.asarray, arrays(1, 40))
  cut = lambda z: (z[..., :2], z[..., 2:]) if parts else (z,)

  @jax.jit
  def run(where):
    where = {name: z[:, 0] if name.startswith("q") else z for name, z in where.items()}
    by_group = lambda z: z.swapaxes(1, 2)
    return step.attention_step(cut(q[:, 0]), cut(by_group(k)), by_group(v), scale=0.3, **settings, **where)

  for used in (3, 10, 40):
    where = places(1, 40, True) | {"q_position": np.full((B, 1), used)}
    where["q_segment"][1] = where["k_segment"][1, used - 2]
    where["k_segment"] = np.where(np.arange(40) < used, where["k_segment"], -1)
    where = jax.tree.map(jnp.asarray, where)
    want = attention(q, k, v, impl="reference", scale=0.3, **settings, **where)[:, 0]
    assert np.abs(want).max() > 0.1
    np.testing.assert_allclose(run(where), want, atol=1e-5)


def test_a_step_that_sees_nothing_is_zero():
  q, k, v = jnp.ones((B, H, K)), jnp.ones((B, G, 9, K)), jnp.ones((B, G, 9, P))
  where = dict(q_position=jnp.zeros(B, int), q_segment=jnp.zeros(B, int))
  where |= dict.fromkeys(("k_position", "k_segment"), jnp.full((B, 9), -1))
  np.testing.assert_array_equal(step.attention_step((q,), (k,), v, scale=1.0, **where), jnp.zeros((B, H, P)))


@pytest.mark.optimized
def test_scores_are_not_written_down():
  t = 512
  shapes = [jax.ShapeDtypeStruct((1, t, 1, 8), np.float32)] * 3
  places = dict.fromkeys(("q_position", "k_position"), jax.ShapeDtypeStruct((1, t), np.int32))
  run = jax.grad(lambda q, k, v, **where: plain("xla")(q, k, v, **where)[0].sum(), argnums=(0, 1, 2))
  stats = jax.jit(run).lower(*shapes, **places).compile().memory_analysis()
  assert stats.temp_size_in_bytes < 4 * t * t, f"{stats.temp_size_in_bytes} bytes; all scores take {4 * t * t}"


@pytest.mark.slow
def test_32768_tokens_take_less_than_a_gibibyte(monkeypatch):
  """A head of 64 at the block sizes in use, forward and backward, as compiled and as run."""
  monkeypatch.undo()
  t = 32768
  q, k, v = (draw(np.random.default_rng(seed), (1, t, 1, 64), np.float32) for seed in range(3))
  loss = lambda q, k, v: (attention(q, k, v, impl="xla") ** 2).sum()
  run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2))).lower(q, k, v).compile()
  stats = run.memory_analysis()
  assert stats.temp_size_in_bytes + stats.output_size_in_bytes + stats.argument_size_in_bytes < 2**30
  value, gradients = run(q, k, v)
  for z in (value, *gradients):
    assert np.isfinite(z).all()


@pytest.fixture
def cuda(monkeypatch):
  """JAX believes that it compiles for a GPU with cuDNN."""
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  monkeypatch.setattr(jax, "local_devices", lambda: [types.SimpleNamespace(compute_capability="8.0")])
  monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)


def program(q, k, v, dtype=jnp.bfloat16, **settings):
  run = jax.value_and_grad(lambda q, k, v: attention(q, k, v, **settings).astype(jnp.float32).sum())
  shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape in (q, k, v)]
  return jax.jit(run).trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()


Q, KV = (2, 256, 4, 64), (2, 256, 2, 64)


@pytest.mark.parametrize("settings", [{}, {"window": 7}, {"mask": "full"}])
def test_a_gpu_is_given_cudnn(cuda, settings):
  """As far as lowering goes: no GPU has run it."""
  text = program(Q, KV, KV, **settings)
  for part in ("__cudnn$fmhaSoftmax(", "__cudnn$fmhaSoftmaxBackward("):
    assert part in text
  assert ("mask_type\\22: \\22CAUSAL" in text) == (settings.get("mask") != "full"), "another mask"
  assert ("sliding_window_length\\22: 7" in text) == ("window" in settings), "another window"


@pytest.mark.parametrize(
  "shapes, settings, reason",
  [
    ((Q, KV, KV), {"dtype": jnp.float32}, r"bfloat16 or float16, not \['float32'\]"),
    (((2, 256, 4, 20), *[(2, 256, 2, 20)] * 2), {}, "a multiple of 8 up to 128, not 20 and 20"),
    ((Q, KV, (2, 256, 2, 32)), {}, "not 64 and 32"),
    ((Q, *[(2, 0, 2, 64)] * 2), {"mask": "full"}, "it needs keys"),
    ((Q, KV, KV), {"softcap": 2.0}, "it has no soft cap"),
    ((Q, KV, KV), {"slopes": SLOPES}, "it has no slopes"),
    ((Q, KV, KV), {"window": 7, "mask": "full"}, "its window needs mask='causal'"),
    ((Q, KV, KV), {"q_segment": jnp.zeros((2, 256), int), "k_segment": jnp.zeros((2, 256), int)}, "no segments"),
    ((Q, KV, KV), {"q_position": jnp.zeros((2, 256), int), "k_position": jnp.zeros((2, 256), int)}, "no places"),
  ],
)
def test_what_cudnn_cannot_do_is_said_and_done_otherwise(cuda, shapes, settings, reason):
  assert "cudnn" not in program(*shapes, **settings)
  refused(reason, program, *shapes, **settings, impl="cudnn")


@pytest.mark.parametrize("lengths, fused", [(None, True), (jnp.array([9, 256]), False)])
def test_attention_to_a_set_of_keys_is_cudnns_unless_some_are_missing(cuda, lengths, fused):
  shapes = [jax.ShapeDtypeStruct(Q, jnp.bfloat16)] * 3
  run = jax.jit(lambda *z: unordered.attend(*z, lengths=lengths))
  assert ("__cudnn$fmha" in run.trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()) == fused


@pytest.mark.parametrize("capability, has", [("7.5", False), ("8.0", True), ("12.0", True), ("gfx90a", False)])
def test_only_new_devices_of_nvidias_have_the_kernels(cuda, monkeypatch, capability, has):
  monkeypatch.setattr(jax, "local_devices", lambda: [types.SimpleNamespace(compute_capability=capability)])
  assert ("cudnn" in program(Q, KV, KV)) == has


def test_a_cpu_is_not_asked_for_cudnn():
  with pytest.raises(ValueError, match=r"cannot run on cpu \(cudnn: it needs an NVIDIA GPU of"):
    attention(*map(jnp.asarray, arrays(6, 6)), impl="cudnn")


@pytest.mark.parametrize("settings, reason", [({"window": 0}, "window=0"), ({"softcap": 0.0}, "softcap=0.0")])
def test_a_window_or_a_soft_cap_of_nothing_is_refused(settings, reason):
  refused(reason, attention, *map(jnp.asarray, arrays(6, 6)), **settings)


def test_blocks_that_nobody_sees_are_skipped():
  at = xla.Places(jnp.arange(96).reshape(4, 1, 24), None)
  of = xla.Places(jnp.arange(96).reshape(3, 1, 32), None)
  causal = xla._needed(xla.Rules("causal", None, 1.0, None), at, of)
  np.testing.assert_array_equal(causal, [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]])
  window = xla._needed(xla.Rules("causal", 8, 1.0, None), at, of)
  np.testing.assert_array_equal(window, [[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]])
  # a second document from token 50 on, nothing from token 64 on
  document = lambda z: z._replace(segment=jnp.where(z.position < 64, z.position // 50, -1))
  packed = xla._needed(xla.Rules("full", None, 1.0, None), document(at), document(of))
  np.testing.assert_array_equal(packed, [[1, 1, 0], [1, 1, 0], [1, 1, 0], [0, 0, 0]])


def test_mistakes_are_named():
  q, k, v = (jnp.asarray(z) for z in arrays(6, 6))
  where = dict.fromkeys(("q_position", "k_position"), jnp.zeros((B, 6), int))
  refused("4 heads over 3 groups of keys", attention, q, jnp.zeros((B, 6, 3, K)), jnp.zeros((B, 6, 3, P)), **where)
  refused("no mask 'anti'; choose from", attention, q, k, v, mask="anti", **where)
  refused("no weights 'sigmoid'; choose from", attention, q, k, v, weights="sigmoid", **where)
  refused("give both or neither", attention, q, k, v, q_segment=where["q_position"], **where)
  refused("one of q_position and k_position is given", attention, q, k, v, q_position=where["q_position"])
  refused("2 slopes for 4 heads", attention, q, k, v, slopes=(1.0, 2.0))
  refused("1 decays for heads of size 5", attention, q, k, v, decays=(-1.0,))
  refused("so they need mask='causal'", attention, q, k, v, decays=DECAYS, mask="full")
