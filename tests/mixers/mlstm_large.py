"""mLSTM of xLSTM 7B: initial values, published size, capped gates, and the cell it shares with the first xLSTM."""

import jax
import jax.numpy as jnp
import numpy as np

from attention.recurrent.mlstm_large import MLSTMLarge
from layers.mlstm_cell import empty, mlstm_cell
from tests.initial import close, initial, normal

SMALL = {"": dict(heads=2, qk_factor=1.5, i_bias=0.0)}
ORACLE = {
  "": dict(heads=2, i_bias=0.0),
  "without cap": (dict(heads=4, qk_factor=1.0, soft_cap=None, i_bias=-1.0, eps=0.0), dict(cap=None, eps=0)),
  "low cap": (dict(heads=1, qk_factor=0.4, soft_cap=0.5, i_bias=1.0, bias=True), dict(cap=0.5)),
}
REFUSED = [
  (dict(heads=3), "heads=3 does not divide 8, the width"),
  (dict(heads=8), "heads=8 does not divide 4, the width of the queries"),
  (dict(qk_factor=0.01), "qk_factor=0.01 of width=8 leaves no channel"),
  (dict(soft_cap=0.0), "soft_cap=0.0; it must be above 0"),
  (dict(heads=0), "heads=0; it must be at least 1"),
  (dict(eps=-1.0), "MLSTMLarge: eps=-1.0; it must be at least 0"),
]
# As in the authors' training code, the kernels of all gates start at 0.
INITIAL = [
  (
    dict(width=256, depth=4),
    {
      "q_proj v_proj": normal((2 / 5 / 256) ** 0.5),
      "out_proj": normal(2 / 4 / 16),
      "i_proj/bias": np.full(8, -10),
      "f_proj/bias": close(np.linspace(3, 6, 8)),
      "i_proj f_proj gate_proj": 0,
    },
  )
]
# xLSTM 7B: eight heads with keys of 256 and values of 512 channels.
STATES = [(dict(width=4096), {"C": (1, 8, 256, 513)})]


def count(d, heads, qk_factor, **_):
  """Queries and keys; values, gate and out; two gates with bias; the norm."""
  return int((2 * qk_factor + 3) * d * d) + 2 * heads * (d + 1) + d


def test_published_size():
  """xLSTM 7B: 6.87e9 parameters with its other parts."""
  shapes = jax.eval_shape(
    MLSTMLarge(width=4096).init, jax.random.key(0), jax.ShapeDtypeStruct((1, 1, 4096), jnp.float32)
  )
  layer = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  # beside it in each of 32 blocks a gated MLP and two norms; one more norm, embedding and head
  blocks = 32 * (layer + 3 * 4096 * 10944 + 2 * 4096)
  assert blocks + 4096 + 2 * 50304 * 4096 == 6_865_424_896


def test_the_cap_bounds_both_gates():
  """However large the tokens: weights lie between e^-c and e^c, and at least sigmoid(-c) of the memory is kept."""
  cap, bias = 2.0, 0.0
  module = MLSTMLarge(width=8, heads=2, soft_cap=cap, i_bias=bias)
  p = jax.tree.map(np.array, initial(module))
  rng = np.random.default_rng(0)
  for gate in ("i_proj", "f_proj"):
    p[gate]["kernel"] = rng.standard_normal((8, 2)).astype(np.float32)
  run = jax.jit(lambda x, state: module.apply({"params": p}, x, state, method="step")[1])
  x = 1e4 * rng.standard_normal((64, 8)).astype(np.float32)
  first = run(x, module.init_state(64, 1))
  # after the first token m is the logarithm of its weight, and all gates saturate
  np.testing.assert_allclose(np.abs(first.m), cap, rtol=1e-5)
  # m started at 9: the forget gate lowers it
  later = run(x, first._replace(m=jnp.full_like(first.m, 9.0)))
  np.testing.assert_allclose(later.m.min(), 9 - np.log1p(np.exp(cap)), rtol=1e-5)
  np.testing.assert_allclose(later.m.max(), 9 - np.log1p(np.exp(-cap)), rtol=1e-5)


def test_it_is_the_cell_of_mlstm_between_linear_maps():
  """Without a cap, and with the gate and the norm undone."""
  module = MLSTMLarge(width=6, heads=2, qk_factor=1.0, soft_cap=None, i_bias=0.5)
  p = jax.tree.map(np.array, initial(module))
  x = jax.random.normal(jax.random.key(0), (2, 9, 6))

  @jax.jit
  def between(p):
    split = lambda name: (x @ p[name]["kernel"]).reshape(2, 9, 2, 3)
    gate = lambda name: jnp.broadcast_to(p[name]["bias"], (2, 9, 2))
    q, k, v = split("q_proj"), split("k_proj"), split("v_proj")
    log_f = jax.nn.log_sigmoid(gate("f_proj"))
    h, _, _ = mlstm_cell(q, k, v, gate("i_proj"), log_f, *empty(2, 2, 3, 3), eps=1e-6)
    norm = (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-6)
    return 0.5 * norm.reshape(2, 9, 6) @ p["out_proj"]["kernel"]

  np.testing.assert_allclose(jax.jit(module.apply)({"params": p}, x), between(p), atol=2e-5)


def test_gates_are_not_rounded_to_the_precision_of_tokens():
  module = MLSTMLarge(width=8, heads=4, i_bias=0.3)
  p = initial(module)
  x = jnp.ones((1, 8), jnp.bfloat16)
  _, state = jax.jit(lambda x: module.apply({"params": p}, x, module.init_state(1, 1), method="step"))(x)
  np.testing.assert_allclose(state.m, 15 * np.tanh(0.3 / 15) * np.ones((1, 4)), rtol=1e-6)
