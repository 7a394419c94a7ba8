"""`neural_memory`: chunked = one token after the other, in values and gradients; what it becomes without its parts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.delta_rule import delta_rule
from kernels.neural_memory import IMPLS, Memory, neural_memory, recall
from tests.kernels.compare import QUICK, TOLERANCE, assert_close, draw, values_and_gradients

ROWS, H, K, F, P = 2, 2, 3, 4, 5
op = jax.jit(neural_memory, static_argnames=("chunk", "bounded", "impl"), compiler_options=QUICK)


def sizes(layers):
  return [(K, P)] if layers == 1 else [(K, F), *[(F, F)] * (layers - 2), (F, P)]


def arrays(layers, t, dtype="float32", length=(0, 0)):
  """Unit keys, momentum and decay from nearly 0 to nearly 1, a memory after `length` tokens.

  Rates up to 1/2, or with several layers, where too large a step has no bound, up to 1/20.
  """
  rng = np.random.default_rng(t)
  q, k = draw(rng, (2, ROWS, t, H, K), dtype)
  k /= np.linalg.norm(k, axis=-1, keepdims=True)
  v = draw(rng, (ROWS, t, H, P), dtype)
  rate = rng.uniform(0, 0.5 if layers == 1 else 0.05, (ROWS, t, H)).astype(dtype)
  log_eta, log_keep = -(10.0 ** rng.uniform(-3, 1, (2, ROWS, t, H))).astype(dtype)
  initial = tuple(0.5 * draw(rng, (H, *size), dtype) for size in sizes(layers))
  old = lambda: tuple(0.3 * draw(rng, (ROWS, H, *size), dtype) for size in sizes(layers))
  memory = Memory(old(), old(), old(), np.array(length, np.int32))
  return q, k, v, rate, log_eta, log_keep, initial, memory


def run(impl, given, chunk, bounded=False, **where):
  """Values and gradients; the memory's weights and the initial ones are arguments too."""
  *tokens, initial, memory = given
  layers = len(initial)

  def flat(*z, **where):
    weights = z[6:]
    parts = [tuple(weights[i * layers : (i + 1) * layers]) for i in range(4)]
    y, last = neural_memory(
      *z[:6], parts[0], Memory(*parts[1:], memory.length), chunk=chunk, bounded=bounded, impl=impl, **where
    )
    return y, *last.start, *last.weights, *last.momentum

  return values_and_gradients(flat, (*tokens, *initial, *memory.start, *memory.weights, *memory.momentum), **where)


@pytest.mark.parametrize(
  "layers, t, chunk, length, masks, dtype, bounded",
  [
    (1, 7, 16, (0, 0), "", "float32", False),
    pytest.param(1, 33, 4, (0, 6), "lengths", "float32", False, marks=pytest.mark.slow),
    (2, 33, 8, (3, 8), "", "float32", True),
    pytest.param(3, 20, 1, (0, 3), "lengths", "float32", True, marks=pytest.mark.slow),
    (2, 40, 7, (0, 5), "lengths", "float64", False),
    (2, 67, 5, (0, 3), "lengths and reset", "float32", True),
  ],
)
def test_chunks_are_one_token_after_the_other(layers, t, chunk, length, masks, dtype, bounded):
  where = {"lengths": np.array([t - 1, t // 2])} if "lengths" in masks else {}
  if "reset" in masks:
    where["reset"] = np.resize([False, False, True, False, False], (ROWS, t))
  with jax.enable_x64(dtype == "float64"):
    given = arrays(layers, t, dtype, length)
    got, want = (run(impl, given, chunk, bounded, **where) for impl in ("xla", "reference"))
    assert_close(got, want, TOLERANCE[dtype])


def test_documents_and_lengths_stand_alone():
  *tokens, initial, memory = arrays(2, 23, length=(2, 0))
  starts = np.zeros((ROWS, 23), bool)
  starts[0, 9] = starts[1, 0] = starts[1, 21] = True
  # past the lengths there is NaN, and a start that is none
  lengths = np.array([23, 20])
  tokens = [
    np.where((np.arange(23) < lengths[:, None]).reshape(ROWS, 23, *[1] * (z.ndim - 2)), z, np.nan) for z in tokens
  ]
  y, last = op(*tokens, initial, memory, chunk=4, reset=starts, lengths=lengths)
  empty = jax.tree.map(jnp.zeros_like, memory)

  def alone(row, first, end, memory):
    one = jax.tree.map(lambda z: z[row : row + 1], memory)
    return op(*(z[row : row + 1, first:end] for z in tokens), initial, one, chunk=4)

  parts = [alone(0, 0, 9, memory), alone(0, 9, 23, empty), alone(1, 0, 20, empty)]
  assert_close(y[0], np.concatenate([parts[0][0][0], parts[1][0][0]]), 1e-5)
  assert_close(y[1, :20], parts[2][0][0], 1e-5)
  assert not np.any(y[1, 20:])
  want = jax.tree.map(lambda a, b: np.concatenate([a, b]), parts[1][1], parts[2][1])
  assert_close(last, want, 1e-5)


@pytest.mark.parametrize("impl", IMPLS)
def test_pieces_make_the_whole(impl):
  *tokens, initial, memory = arrays(2, 21)
  whole, ys = op(*tokens, initial, memory, chunk=4, impl=impl), []
  for first, end in ((0, 6), (6, 8), (8, 21)):
    y, memory = op(*(z[:, first:end] for z in tokens), initial, memory, chunk=4, impl=impl)
    ys.append(y)
  assert_close((np.concatenate(ys, axis=1), memory), whole, 1e-5)


@pytest.mark.parametrize("impl", IMPLS)
def test_a_linear_memory_without_momentum_is_the_delta_rule(impl):
  q, k, v, rate, log_eta, log_keep, (initial,), _ = jax.tree.map(jnp.asarray, arrays(1, 19))
  empty = (jnp.zeros((ROWS, H, K, P)),)
  memory = Memory(empty, empty, empty, jnp.zeros(ROWS, jnp.int32))
  y, last = op(
    q, k, v, rate, np.full_like(log_eta, -np.inf), log_keep, (np.zeros_like(initial),), memory, chunk=1, impl=impl
  )
  want = delta_rule(q, 2 * rate[..., None] * k, v, k, empty[0], None, log_keep[..., None])
  assert_close((y, last.weights[0]), want, 1e-5)


def test_the_last_value_is_stored_when_the_rate_is_one_half():
  # |S^T k - v|^2 falls to 0 in one step of 1/2, if the key has length 1
  q, k, v, rate, log_eta, log_keep, initial, memory = arrays(1, 9)
  steps = functools.partial(np.full_like, log_eta)
  y, _ = op(k, k, v, steps(0.5), steps(-np.inf), steps(0.0), initial, memory, chunk=1)
  np.testing.assert_allclose(y, v, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
def test_a_bounded_chunk_of_equal_tokens_does_not_overshoot(impl):
  """Eight steps of rate 1/2 with momentum 0.9 from the same weights: unbounded, the first chunk ends far beyond v."""
  t, chunk = 80, 8
  k = np.zeros((1, t, 1, K), np.float32)
  k[..., 0] = 1
  v, gate = np.full((1, t, 1, P), 3, np.float32), np.zeros((1, t, 1), np.float32)
  empty = (np.zeros((1, 1, K, P), np.float32),)
  memory = Memory(empty, empty, empty, np.zeros(1, np.int32))
  given = k, k, v, gate + 0.5, gate + np.log(np.float32(0.9)), gate, (empty[0][0],), memory
  error = {on: np.abs(op(*given, chunk=chunk, bounded=on, impl=impl)[0] - v)[0, :, 0, 0] for on in (False, True)}
  assert error[False][chunk - 1] > 50
  assert error[True].max() <= 3
  assert error[True][-1] < 0.3


@pytest.mark.parametrize("impl", IMPLS)
def test_a_bounded_memory_does_not_drift_while_other_tokens_come(impl):
  """Momentum of 63/64, and a rate that is 0 for every second 32 tokens: unbounded in eta, the error grows to 3e5."""
  t, chunk = 2048, 4
  k = np.ones((1, t, 1, 1), np.float32)
  rate = np.where(np.arange(t) // 32 % 2 == 0, 0.5, 0)[None, :, None].astype(np.float32)
  still, empty = np.zeros((1, t, 1), np.float32), (np.zeros((1, 1, 1, 1), np.float32),)
  memory = Memory(empty, empty, empty, np.zeros(1, np.int32))
  given = k, k, k, rate, still + np.log1p(np.float32(-1 / 64)), still, (empty[0][0],), memory
  error = np.abs(op(*given, chunk=chunk, bounded=True, impl=impl)[0] - k)
  assert error.max() <= 1
  assert error[:, -64:].max() < 1e-5


def test_no_momentum_and_full_forgetting_are_finite():
  for log_eta, log_keep in ((-np.inf, 0.0), (0.0, -np.inf), (0.0, 0.0)):
    q, k, v, rate, z, _, initial, memory = arrays(2, 12)
    given = q, k, v, 0.1 * rate, np.full_like(z, log_eta), np.full_like(z, log_keep), initial, memory
    for leaf in jax.tree.leaves(run("xla", given, 4)):
      assert np.isfinite(leaf).all()


def test_bad_arguments_are_named():
  given = jax.tree.map(jnp.asarray, arrays(1, 4))
  with pytest.raises(ValueError, match="chunk=0; it must be at least 1"):
    neural_memory(*given, chunk=0)
  with pytest.raises(ValueError, match="no implementation 'pallas_gpu'"):
    neural_memory(*given, chunk=2, impl="pallas_gpu")


@pytest.mark.parametrize("layers", [1, 3])
def test_recall_is_a_memory_that_takes_no_steps(layers):
  q, k, v, rate, _, _, initial, memory = arrays(layers, 5, length=(2, 3))
  still = np.zeros_like(rate)
  y, _ = op(q, k, v, still, still - 1e4, still, initial, memory, chunk=4)
  np.testing.assert_allclose(jax.jit(recall)(memory.weights, q), y, atol=1e-5)
