"""mLSTM: initial values, published sizes, and its cell: scaling by the largest weight changes nothing but the range."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention.recurrent.mlstm import MLSTM
from kernels.max_scan import EMPTY
from layers.mlstm_cell import mlstm_cell
from tests.initial import close, initial, normal

SMALL = {"": dict(expand=1, heads=2, block_size=2)}
ORACLE = {"": dict(heads=2), "without eps": (dict(expand=1.5, heads=3, block_size=2, taps=2, eps=0.0), dict(eps=0))}
SLOW = ("without eps",)
REFUSED = [
  (dict(heads=3), "heads=3 does not divide the inner width 16"),
  (dict(block_size=3), "block_size=3 does not divide the inner width 16"),
  (dict(expand=0.01), "expand=0.01 of width=8 leaves no channel"),
  (dict(taps=0), "taps=0; it must be at least 1"),
  (dict(eps=-1.0), "MLSTM: eps=-1.0; it must be at least 0"),
]
INITIAL = [
  (
    dict(width=256, depth=4),
    {
      "in_proj q_proj": normal((2 / 5 / 256) ** 0.5),
      "out_proj": normal(2 / 4 / 16),
      "f_proj/bias": close([3, 4, 5, 6]),
      "i_proj f_proj": 0,
      "i_proj/bias": normal(0.1, 0.9),
      "skip": np.ones(512),
    },
  )
]
# Four heads, twice the width inside.
STATES = [(dict(width=1024), {"C": (1, 4, 512, 513)})]


def count(d, expand, heads, block_size, taps=4):
  """In (twice) and out; convolution with bias; three maps in blocks; two gates with bias; norm; skip."""
  e = expand * d
  return 3 * d * e + (taps + 1) * e + 3 * block_size * e + 2 * heads * (3 * e + 1) + 2 * e


B, T, H, K = 2, 131, 3, 4


def cell(q, k, v, log_f, i, C, m, impl="auto"):
  """The outputs of the cell without eps, with keys multiplied by sqrt(k), by which it divides them."""
  return mlstm_cell(q, K**0.5 * k, v, i, log_f, C, m, eps=0.0, impl=impl)[0]


def loop(q, k, v, log_f, i, C, m):
  """The same, step by step, with weights that are not scaled."""
  C = np.exp(m)[..., None, None] * C
  y = np.zeros(v.shape)
  for t in range(T):
    new = np.exp(i[:, t])[..., None] * k[:, t]
    row = np.concatenate([v[:, t], np.ones((B, H, 1))], axis=-1)
    C = np.exp(log_f[:, t])[..., None, None] * C + new[..., None] * row[..., None, :]
    read = np.einsum("bhkp,bhk->bhp", C, q[:, t])
    y[:, t] = read[..., :-1] / np.maximum(np.abs(read[..., -1:]), 1)
  return y


def arrays(gates):
  """Keys and queries without signs, so that no divisor is a difference; some rows start from nothing."""
  rng = np.random.default_rng(0)
  q, k = np.abs(rng.standard_normal((2, B, T, H, K)))
  v, C = rng.standard_normal((B, T, H, K)), rng.standard_normal((B, H, K, K + 1))
  m = np.where(np.arange(H) == 0, EMPTY, 0.5) * np.ones((B, 1))
  C = np.where((m == EMPTY)[..., None, None], 0, np.abs(C))
  i, log_f = gates(rng, (B, T, H))
  return [z.astype(np.float32) for z in (q, k, v, log_f, i, C, m)]


GATES = {
  "moderate": lambda rng, shape: (rng.standard_normal(shape), -np.log1p(np.exp(-3 * rng.standard_normal(shape)))),
  # some tokens erase the state, others keep all of it
  "extreme decays": lambda rng, shape: (rng.standard_normal(shape), -(10.0 ** rng.uniform(-7, 2.5, shape))),
  "no decay": lambda rng, shape: (rng.standard_normal(shape), np.zeros(shape)),
}


@pytest.mark.parametrize("gates", GATES)
def test_stabilised_is_unstabilised(gates):
  """In single precision, at an odd length, whatever the decays."""
  inputs = arrays(GATES[gates])
  expected = loop(*(z.astype(np.float64) for z in inputs))
  np.testing.assert_allclose(jax.jit(cell)(*inputs), expected, atol=3e-5 * np.abs(expected).max())


def test_weights_beyond_any_exponential():
  """A factor e^200 cancels, with e^-200 the outputs are 0; the gradients are those of the step loop."""
  q, k, v, log_f, i, C, m = arrays(GATES["moderate"])
  m = np.full_like(m, EMPTY)
  C = 0 * C
  large = jax.jit(cell)(q, k, v, log_f, i + 200, C, m)
  # of the weights as single precision knows them
  weights, n = np.exp((i + 200).astype(np.float64) - 200), np.zeros((B, H, K))
  num = np.zeros((B, H, K, K))
  for t in range(T):
    a = np.exp(log_f[:, t])[..., None]
    n = a * n + weights[:, t, :, None] * k[:, t]
    num = a[..., None] * num + (weights[:, t, :, None] * k[:, t])[..., None] * v[:, t, :, None]
    # the lower bound of the divisor, 1, is far below it
    want = np.einsum("bhkp,bhk->bhp", num, q[:, t]) / np.einsum("bhk,bhk->bh", n, q[:, t])[..., None]
    np.testing.assert_allclose(large[:, t], want, rtol=3e-5, atol=3e-5)
  small = jax.jit(cell)(q, k, v, log_f, i - 200, C, m)
  np.testing.assert_array_equal(small, np.zeros_like(small))
  gradients = lambda impl: jax.jit(jax.grad(lambda *z: jnp.sum(jnp.sin(cell(*z, impl=impl))), argnums=(0, 1, 2, 3, 4)))
  blocks, steps = gradients("xla"), gradients("reference")
  for shift in (200, -200):
    inputs = (q, k, v, log_f, i + shift, C, m)
    for actual, expected in zip(blocks(*inputs), steps(*inputs)):
      assert np.isfinite(actual).all()
      np.testing.assert_allclose(actual, expected, atol=1e-4 * np.abs(expected).max())


def test_extreme_decays_have_the_gradient_of_the_step_loop():
  """In queries, keys, values, both gates and the first state."""
  inputs = arrays(GATES["extreme decays"])
  loss = lambda impl: jax.jit(jax.grad(lambda z: jnp.sum(jnp.sin(cell(*z, impl=impl)))))
  for actual, expected in zip(loss("xla")(inputs), loss("reference")(inputs)):
    np.testing.assert_allclose(actual, expected, atol=3e-5 * np.abs(expected).max())


def test_gates_are_not_rounded_to_the_precision_of_tokens():
  """The first token's weight is the exponential of its gate, which starts as a float32 bias."""
  module = MLSTM(width=8, heads=4)
  p = initial(module)
  x = jnp.ones((1, 8), jnp.bfloat16)
  _, state = jax.jit(lambda x: module.apply({"params": p}, x, module.init_state(1, 1), method="step"))(x)
  np.testing.assert_array_equal(state.m[0], p["i_proj"]["bias"])
  assert (p["i_proj"]["bias"] != p["i_proj"]["bias"].astype(jnp.bfloat16)).any()


def test_maps_have_blocks_of_four_channels():
  shapes = jax.eval_shape(MLSTM(width=1024).init, jax.random.key(0), jax.ShapeDtypeStruct((1, 1, 1024), jnp.float32))
  assert shapes["params"]["q_proj"]["kernel"].value.shape == (512, 4, 4)
