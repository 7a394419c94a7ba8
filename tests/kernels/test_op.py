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
  masks,
  spoil,
  values_and_gradients,
)
from tests.kernels.ops import OPS

# What an implementation does not know, and says so in tests of its own.
REFUSED = {("selective_scan, complex", "xla"), ("lti", "products")}
ALL = [(name, impl) for name, op in OPS.items() for impl in anywhere(op.impls) if (name, impl) not in REFUSED]
FAST = [(name, impl) for name, impl in ALL if impl != "reference"]
# The others are compared with the reference, and the default suite shows these properties of it alone.
ALONE = [pytest.param(*case, marks=[pytest.mark.slow] * (case[1] != "reference")) for case in ALL]
# Less and more than a chunk, with a ragged end; one token has a test of its own.
SHAPES = [pytest.param(1, True, marks=pytest.mark.slow), (63, False), (100, True)]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
  for module in (linear_scan_associative, selective_scan_associative, ssd_xla):
    monkeypatch.setattr(module, "CHUNK", 16)


@functools.cache
def compiled(name, impl):
  run = lambda arrays, masks: OPS[name].run(*arrays, **masks, impl=impl)
  return jax.jit(run, compiler_options=QUICK)


def call(name, impl, arrays, **masks):
  return compiled(name, impl)(tuple(arrays.values()), masks)


def part(op, arrays, now, state=None):
  """Some of the tokens, from another state if one is given."""
  cut = {key: z[:, now] if key in op.tokens() else z for key, z in arrays.items()}
  return cut if state is None else {**cut, op.state: state}


@functools.cache
def expected(name, t, masked, dtype):
  op = OPS[name]
  arrays, where = tuple(op.draw(t, dtype).values()), masks(t) if masked else {}
  return values_and_gradients(functools.partial(op.run, impl="reference"), arrays, **where)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("t, masked", SHAPES)
@pytest.mark.parametrize("name, impl", FAST)
def test_values_and_gradients_equal_the_reference(name, impl, t, masked, dtype):
  """NaN at padding reaches neither."""
  op = OPS[name]
  with jax.enable_x64(dtype == "float64"):
    arrays, where = op.draw(t, dtype), masks(t) if masked else {}
    if masked:
      arrays = {key: spoil(where["lengths"], z) if key in op.tokens() else z for key, z in arrays.items()}
    got = values_and_gradients(functools.partial(op.run, impl=impl), tuple(arrays.values()), **where)
    assert_close(got, expected(name, t, masked, dtype), TOLERANCE[dtype])


@pytest.mark.parametrize("name, impl", ALONE)
def test_lengths_equal_each_row_alone(name, impl):
  op, (first, second) = OPS[name], (0, 4)
  arrays = op.draw(8)
  # The document that would start at padding starts nothing.
  reset = np.arange(8)[None].repeat(2, 0) == 6
  y, last = call(name, impl, arrays, reset=reset, lengths=np.array([first, second]))
  np.testing.assert_array_equal(last[0], arrays[op.state][0])
  assert not y[0].any(), "a row of length 0 has outputs"
  assert not y[1, second:].any(), "outputs at padding"
  alone, alone_last = call(name, impl, part(op, arrays, slice(second)))
  np.testing.assert_allclose(y[1, :second], alone[1], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(last[1], alone_last[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OPS)
def test_no_tokens_leave_the_state_alone(name):
  op = OPS[name]
  arrays = op.draw(8)
  y, last = call(name, "auto", part(op, arrays, slice(0)))
  assert y.shape == (2, 0, *call(name, "auto", arrays)[0].shape[2:])
  np.testing.assert_array_equal(last, arrays[op.state])


@pytest.mark.parametrize("name, impl", ALONE)
def test_two_calls_make_one(name, impl):
  op = OPS[name]
  arrays = op.draw(100)
  whole, last = call(name, impl, arrays)
  first, between = call(name, impl, part(op, arrays, slice(37)))
  second, last_again = call(name, impl, part(op, arrays, slice(37, 100), between))
  np.testing.assert_allclose(jnp.concatenate([first, second], axis=1), whole, rtol=1e-4, atol=2e-4)
  np.testing.assert_allclose(last_again, last, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("name, impl", ALONE)
def test_reset_separates_documents(name, impl):
  op = OPS[name]
  arrays = op.draw(8)
  y, last = call(name, impl, arrays, reset=np.arange(8)[None].repeat(2, 0) == 4)
  # RG-LRU's first token of a document enters whole, so that it needs to know of the start, too
  start = {"reset": np.arange(4)[None].repeat(2, 0) == 0}
  first, _ = call(name, impl, part(op, arrays, slice(4)))
  second, second_last = call(name, impl, part(op, arrays, slice(4, 8), np.zeros_like(arrays[op.state])), **start)
  np.testing.assert_allclose(y, np.concatenate([first, second], axis=1), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(last, second_last, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name, impl", ALL)
def test_a_document_that_is_not_finite_spoils_no_other(name, impl):
  """Neither through the state from an earlier call nor through its tokens: a decay of 0 times NaN is NaN."""
  op = OPS[name]
  arrays, where = op.draw(40), dict(reset=np.isin(np.arange(40), [5, 20])[None].repeat(2, 0))
  y, last = call(name, impl, arrays, **where)
  for now in (slice(0, 0), slice(7, 8)):
    spoilt = {key: np.array(z) for key, z in arrays.items()}
    for key in op.tokens():
      spoilt[key][:, now] = np.nan
    if now.stop == 0:
      spoilt[op.state][:] = np.nan
    got, got_last = call(name, impl, spoilt, **where)
    start = 20 if now.stop else 5
    np.testing.assert_array_equal(got[:, start:], y[:, start:])
    np.testing.assert_array_equal(got_last, last)


@pytest.mark.parametrize("name, impl", ALONE)
def test_bfloat16_comes_back_with_a_float32_state(name, impl):
  op = OPS[name]
  arrays = {key: z if np.iscomplexobj(z) else np.asarray(z, jnp.bfloat16) for key, z in op.draw(8).items()}
  arrays[op.state] = arrays[op.state].astype(np.result_type(arrays[op.state].dtype, np.float32))
  wide = {key: z if np.iscomplexobj(z) else z.astype("float32") for key, z in arrays.items()}
  y, last = call(name, impl, arrays)
  exact, exact_last = call(name, impl, wide)
  complex_scan = jnp.iscomplexobj(exact)
  assert y.dtype == (exact.dtype if complex_scan else jnp.bfloat16)
  assert last.dtype == exact_last.dtype
  np.testing.assert_allclose(np.asarray(y, exact.dtype), exact, atol=2.0**-8 * np.abs(exact).max())
  np.testing.assert_allclose(last, exact_last, rtol=1e-4, atol=1e-5)


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
def test_one_token_equals_the_first_of_two_whose_second_is_padding(name):
  """The other way through the definition: a loop, and a state that stands still."""
  op = OPS[name]
  arrays = op.draw(2)
  one = {key: z[:, :1] if key in op.tokens() else z for key, z in arrays.items()}
  got, pulled = values_and_gradients(op.run, tuple(one.values()))
  reference = functools.partial(op.run, impl="reference")

  def padded(*z):
    y, last = reference(*z, lengths=jnp.array([1, 1]))
    return y[:, :1], last

  want, want_pulled = values_and_gradients(padded, tuple(arrays.values()))
  assert_close(got, want, 1e-5)
  first = {key: z[:, :1] if key in op.tokens() else z for key, z in zip(arrays, want_pulled)}
  assert_close(pulled, tuple(first.values()), 1e-5)


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
