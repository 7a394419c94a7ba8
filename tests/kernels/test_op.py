"""What holds for every op over time, in every implementation that runs everywhere."""

import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import long_conv, max_scan
from kernels.linear_scan import associative as linear_scan_associative
from kernels.selective_scan import associative as selective_scan_associative
from kernels.ssd import xla as ssd_xla
from tests.kernels.compare import (
  DTYPES,
  QUICK,
  TOLERANCE,
  anywhere,
  assert_close,
  cotangents,
  differentiated,
  masks,
  spoil,
  values_and_gradients,
)
from tests.kernels.ops import DECAYING, OPS

# What an implementation does not know, and says so in tests of its own.
REFUSED = {("selective_scan, complex", "xla"), ("lti", "products")}
ALL = [(name, impl) for name, op in OPS.items() for impl in anywhere(op.impls) if (name, impl) not in REFUSED]
# The others are compared with the reference, and the default suite shows these properties of it alone.
ALONE = [pytest.param(*case, marks=[pytest.mark.slow] * (case[1] != "reference")) for case in ALL]
T = 100  # six chunks and a ragged end


# Other sizes: of fewer tokens than a block or a chunk, of whole ones, of more than states are kept for; of other groups
# and taps. Op, tokens, with masks, sizes.
OTHER = [
  ("ssd", T, True, dict(g=4)),
  ("gated_linear_attention", 7, True, {}),
  ("gated_linear_attention, bonus", 16, False, {}),
  ("delta_rule, by channel", 7, True, {}),
  ("delta_rule, general", 16, False, {}),
  ("selective_scan", T, False, dict(g=1)),
  ("short_conv", 63, True, dict(w=1, v=0)),
  ("short_conv", T, True, dict(w=40, v=39)),
]
SLOW = [
  ("ssd", 64, False, dict(g=1)),
  ("gated_linear_attention", 129, True, {}),
  ("delta_rule", 65, False, {}),
  ("delta_rule, gated", 129, True, {}),
  ("selective_scan, gated", T, True, dict(g=1)),
  ("short_conv", 63, False, dict(w=1, v=0)),
  ("short_conv", T, False, dict(w=40, v=39)),
  *((name, 1, True, {}) for name in OPS),
  *((name, 63, False, {}) for name in OPS if "," in name),
]


def comparisons():
  """Each form with masks at T tokens, the first of each op without them at 63, and the rows above."""
  rows = [(name, T, True, {}) for name in OPS] + [(name, 63, False, {}) for name in OPS if "," not in name] + OTHER
  for name, t, masked, sizes in rows + SLOW:
    for impl in [impl for op, impl in ALL if op == name and impl != "reference"]:
      case = f"{name}, {impl}, {t} tokens{', with masks' * masked}{f', {sizes}' if sizes else ''}"
      marks = [pytest.mark.slow] * ((name, t, masked, sizes) in SLOW)
      yield pytest.param(name, impl, t, masked, tuple(sizes.items()), id=case, marks=marks)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
  for module in (linear_scan_associative, selective_scan_associative, ssd_xla):
    monkeypatch.setattr(module, "CHUNK", 16)


# The tests of one implementation share its program at T tokens with masks: to compile it is what they cost.
@functools.cache
def compiled(name, impl):
  return differentiated(functools.partial(OPS[name].run, impl=impl))


@functools.cache
def outputs(name, t, dtype, sizes=()):
  """Shapes of the outputs and the last state."""
  run = functools.partial(OPS[name].run, impl="reference")
  return jax.eval_shape(run, *OPS[name].draw(t, dtype, **dict(sizes)).values())


def call(name, impl, arrays, starts=(), lengths=(T, T)):
  """The outputs and the last state, with documents that start at these tokens of both rows."""
  where = {"reset": np.isin(np.arange(T), starts)[None].repeat(2, 0), "lengths": np.array(lengths)}
  zeros = tuple(np.zeros(z.shape, z.dtype) for z in outputs(name, T, "float32"))
  return jax.device_get(compiled(name, impl)(tuple(arrays.values()), zeros, where)[0])


def later(op, arrays, counts, state):
  """The tokens of row i after its first counts[i], wrapping around, and the state before them."""
  rolled = lambda z: np.stack([np.roll(row, -count, axis=0) for row, count in zip(z, counts)])
  return {key: rolled(z) if key in op.tokens() else z for key, z in arrays.items()} | {op.state: state}


def evaluate(name, impl, t, arrays, where, dtype, sizes):
  given = tuple(arrays.values()), cotangents(outputs(name, t, dtype, sizes), where), where
  return jax.block_until_ready(compiled(name, impl)(*given))


@functools.cache
def expected(name, t, masked, dtype, sizes):
  arrays = OPS[name].draw(t, dtype, **dict(sizes))
  return evaluate(name, "reference", t, arrays, masks(t) if masked else {}, dtype, sizes)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name, impl, t, masked, sizes", comparisons())
def test_values_and_gradients_equal_the_reference(name, impl, t, masked, sizes, dtype):
  """NaN at padding reaches neither."""
  op = OPS[name]
  with jax.enable_x64(dtype == "float64"):
    arrays, where = op.draw(t, dtype, **dict(sizes)), masks(t) if masked else {}
    if masked:
      arrays = {key: spoil(where["lengths"], z) if key in op.tokens() else z for key, z in arrays.items()}
    got = evaluate(name, impl, t, arrays, where, dtype, sizes)
    assert_close(got, expected(name, t, masked, dtype, sizes), TOLERANCE[dtype])


@pytest.mark.parametrize("name, impl", ALONE)
def test_a_row_that_ends_early_goes_on_in_another_call(name, impl):
  """Together the two calls make one, and a row of no tokens keeps its state."""
  op, end = OPS[name], 37
  arrays = op.draw(T)
  whole, last = call(name, impl, arrays)
  # The document that would start at padding starts nothing.
  y, between = call(name, impl, arrays, [60], [0, end])
  np.testing.assert_array_equal(between[0], arrays[op.state][0])
  assert not y[0].any(), "a row of length 0 has outputs"
  assert not y[1, end:].any(), "outputs at padding"
  rest, last_again = call(name, impl, later(op, arrays, (0, end), between), lengths=[T, T - end])
  assert_close(np.stack([rest[0], np.concatenate([y[1, :end], rest[1, :-end]])]), whole, TOLERANCE["float32"])
  assert_close(last_again, last, TOLERANCE["float32"])


@pytest.mark.parametrize("name", OPS)
def test_no_tokens_leave_the_state_alone(name):
  op = OPS[name]
  arrays = {key: z[:, :0] if key in op.tokens() else z for key, z in op.draw(8).items()}
  y, last = jax.jit(op.run, compiler_options=QUICK)(*arrays.values())
  assert y.shape == (2, 0, *outputs(name, T, "float32")[0].shape[2:])
  np.testing.assert_array_equal(last, arrays[op.state])


@pytest.mark.parametrize("name, impl", ALL)
def test_no_rows_have_outputs_and_a_state_of_no_rows(name, impl):
  arrays = OPS[name].draw(8, b=0)
  y, last = jax.eval_shape(functools.partial(OPS[name].run, impl=impl), *arrays.values())
  want, want_last = outputs(name, T, "float32")
  assert y.shape == (0, 8, *want.shape[2:])
  assert (last.shape, last.dtype) == ((0, *want_last.shape[1:]), want_last.dtype)


@pytest.mark.parametrize("name, impl", ALONE)
def test_reset_separates_documents(name, impl):
  op, start = OPS[name], 40
  arrays = op.draw(T)
  y, last = call(name, impl, arrays, [start])
  first, _ = call(name, impl, arrays, lengths=[start, start])
  # RG-LRU's first token of a document enters whole, so that it needs to know of the start, too
  rest = later(op, arrays, (start, start), np.zeros_like(arrays[op.state]))
  second, second_last = call(name, impl, rest, [0], [T - start, T - start])
  assert_close(y, np.concatenate([first[:, :start], second[:, :-start]], axis=1), TOLERANCE["float32"])
  assert_close(last, second_last, TOLERANCE["float32"])


@pytest.mark.parametrize("name, impl", ALL)
def test_a_document_that_is_not_finite_spoils_no_other(name, impl):
  """Neither through the state from an earlier call nor through its tokens: a decay of 0 times NaN is NaN."""
  op, starts = OPS[name], [5, 20]
  arrays = op.draw(T)
  y, last = call(name, impl, arrays, starts)
  for now, next_document in ((slice(0, 0), 5), (slice(7, 8), 20)):
    spoilt = {key: np.array(z) for key, z in arrays.items()}
    for key in op.tokens():
      spoilt[key][:, now] = np.nan
    if now.stop == 0:
      spoilt[op.state][:] = np.nan
    got, got_last = call(name, impl, spoilt, starts)
    np.testing.assert_array_equal(got[:, next_document:], y[:, next_document:])
    np.testing.assert_array_equal(got_last, last)


@pytest.mark.parametrize("name, impl", ALONE)
def test_bfloat16_comes_back_with_a_float32_state(name, impl):
  op = OPS[name]
  arrays = {key: z if np.iscomplexobj(z) else np.asarray(z, jnp.bfloat16) for key, z in op.draw(T).items()}
  arrays[op.state] = arrays[op.state].astype(np.result_type(arrays[op.state].dtype, np.float32))
  wide = {key: z if np.iscomplexobj(z) else z.astype("float32") for key, z in arrays.items()}
  y, last = jax.jit(functools.partial(op.run, impl=impl), compiler_options=QUICK)(*arrays.values())
  exact, exact_last = call(name, impl, wide)
  assert y.dtype == (exact.dtype if np.iscomplexobj(exact) else jnp.bfloat16)
  np.testing.assert_allclose(np.asarray(y, exact.dtype), exact, atol=2.0**-8 * np.abs(exact).max())
  assert_close(last, exact_last, TOLERANCE["float32"])


@pytest.mark.parametrize("name, impl", [case for case in ALL if case[0] in DECAYING and case[1] != "reference"])
def test_strong_decays_are_forgotten_and_weak_ones_exact(name, impl):
  """After a decay of e^-170 or 0, those of the next tokens keep all their digits; without decay all stays."""
  arrays = tuple(OPS[name].forgetting().values())
  got, want = (
    values_and_gradients(functools.partial(OPS[name].run, impl=each), arrays) for each in (impl, "reference")
  )
  assert_close(got, want, DECAYING[name])
  assert all(np.isfinite(z).all() for z in jax.tree.leaves(got))


MANY = dict(b=1, t=4096, h=2, g=1, k=32, p=32, e=16, n=16)
LARGE = ("selective_scan", "ssd", "gated_linear_attention", "delta_rule, general")


@pytest.mark.parametrize("name, impl", [case for case in ALL if case[0] in LARGE and case[1] != "reference"])
@pytest.mark.optimized
def test_the_gradient_keeps_no_state_per_token(name, impl):
  op = OPS[name]
  shapes = op.shapes(MANY, "float32")
  loss = jax.grad(lambda *z: op.run(*z, impl=impl)[0].sum(), argnums=tuple(range(len(shapes))))
  compiled = jax.jit(loss).lower(*shapes.values()).compile()
  used, states = compiled.memory_analysis().temp_size_in_bytes, 4 * MANY["t"] * shapes[op.state].size
  assert used < 0.75 * states, f"{used} temporary bytes; all states would be {states}"


LOOPS = {"scan", "while", "fft", "cumsum", "cummax", "triangular_solve", "pad"}


def primitives(jaxpr):
  """Names of all operations in a program, inner ones included."""
  core = jax.extend.core
  for equation in jaxpr.eqns:
    yield equation.primitive.name
    inner = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda z: isinstance(z, core.ClosedJaxpr))
    for program in inner:
      if isinstance(program, (core.Jaxpr, core.ClosedJaxpr)):
        yield from primitives(getattr(program, "jaxpr", program))


@pytest.mark.parametrize("name", OPS)
def test_one_token_equals_the_first_of_many_that_are_padding(name):
  """The other way through the definition: a loop, and a state that stands still."""
  op = OPS[name]
  arrays, where = op.draw(T), {"reset": np.zeros((2, T), bool), "lengths": np.array([1, 1])}
  bars = cotangents(outputs(name, T, "float32"), where)
  (y, last), pulled = compiled(name, "reference")(tuple(arrays.values()), bars, where)
  first = lambda given: tuple(z[:, :1] if key in op.tokens() else z for key, z in zip(arrays, given))
  got = differentiated(op.run)(first(arrays.values()), (bars[0][:, :1], *bars[1:]), {})
  assert_close(got, ((y[:, :1], last), first(pulled)), 1e-5)


@pytest.mark.parametrize("name", OPS)
def test_one_token_needs_no_loop(name):
  op = OPS[name]

  def loops(t, impl):
    arrays = map(jnp.asarray, op.draw(t).values())
    return LOOPS & set(primitives(jax.make_jaxpr(functools.partial(op.run, impl=impl))(*arrays).jaxpr))

  assert not loops(1, "auto")
  assert loops(2, "reference"), "the test sees no loop where there is one"


def test_one_token_of_ops_without_a_state_needs_no_loop():
  u, k = jnp.ones((2, 1, 3)), jnp.ones((3, 4))
  for run, arrays in ((long_conv.long_conv, (u, k)), (max_scan.max_scan, (u, u, u[:, 0]))):
    assert not LOOPS & set(primitives(jax.make_jaxpr(run)(*arrays).jaxpr))
  np.testing.assert_array_equal(long_conv.long_conv(2 * u, k, k_back=2 * k), np.full((2, 1, 3), 6))
