"""The recurrent cells: as Flax has them, their initial values, and what their gates do."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.mixer import build

D, T = 6, 9
X = jax.random.normal(jax.random.key(1), (2, T, D))


def initial(name, width=D, **kwargs):
  module = build(name, width=width, **kwargs)
  v = nn.unbox(jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 1, width))))
  return module, v


def noisy(name, **kwargs):
  module, v = initial(name, **kwargs)
  keys = iter(jax.random.split(jax.random.key(2), 20))
  return module, jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape), v)


def flax_parameters(p, gates, biased):
  """W, R and bias, gate by gate under Flax's names; `biased` is the prefix under which a gate's bias is found."""
  found = {}
  for i, gate in enumerate(gates):
    columns = slice(i * D, (i + 1) * D)
    found[f"i{gate}"], found[f"h{gate}"] = {"kernel": p["W"][:, columns]}, {"kernel": p["R"][:, columns]}
    found[biased + gate]["bias"] = p["bias"][columns]
  return found


@pytest.mark.parametrize(
  "name, kwargs, cell, gates, biased",
  [
    ("rnn", {}, nn.SimpleCell, "", "i"),
    ("lstm", {}, nn.OptimizedLSTMCell, "ifgo", "h"),
    ("gru", dict(reset_gate="after"), nn.GRUCell, "rzn", "i"),
  ],
)
def test_cells_are_those_of_flax(name, kwargs, cell, gates, biased):
  module, v = noisy(name, **kwargs)
  p = v["params"]
  theirs = flax_parameters(p, gates or [""], biased)
  if name == "gru":
    theirs["hn"]["bias"] = p["b"]
  y = jax.jit(lambda x: nn.RNN(cell(D)).apply({"params": {"cell": theirs}}, x))(X)
  np.testing.assert_allclose(jax.jit(module.apply)(v, X), y, atol=1e-5)


@pytest.mark.parametrize("name, gates", [("rnn", 1), ("lstm", 4), ("gru", 3)])
def test_every_recurrent_matrix_starts_orthogonal(name, gates):
  R = initial(name)[1]["params"]["R"]
  for block in np.split(np.asarray(R), gates, axis=1):
    np.testing.assert_allclose(block @ block.T, np.eye(D), atol=1e-5)


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_input_matrices_start_with_variance_one_over_the_width(name):
  p = initial(name, width=64)[1]["params"]
  np.testing.assert_allclose(np.mean(np.square(p["W"])), 1 / 64, rtol=0.1)


def test_min_gru_starts_as_linear_layers_of_pytorch():
  """Uniform up to the root of the fan-in, weights and biases, 64 in and 128 out."""
  p = initial("min_gru", width=64, expand=2)[1]["params"]
  for name, bound in {"z_proj": 1 / 8, "n_proj": 1 / 8, "out_proj": 128**-0.5}.items():
    for leaf in (p[name]["kernel"], p[name]["bias"]):
      np.testing.assert_allclose([leaf.min(), leaf.max()], [-bound, bound], rtol=0.1)


def test_a_new_lstm_remembers():
  bias = initial("lstm")[1]["params"]["bias"]
  np.testing.assert_array_equal(bias, np.repeat([0, 1, 0, 0], D))


def test_min_gru_in_logarithms_is_the_same():
  """App. B: log h_t as a cumulative log-sum-exp, which needs positive candidates; here in float64."""
  module, v = noisy("min_gru", candidate="positive")
  p = jax.tree.map(lambda leaf: np.asarray(leaf, float), v["params"])
  x = np.asarray(X, float)
  k = x @ p["z_proj"]["kernel"] + p["z_proj"]["bias"]
  n = x @ p["n_proj"]["kernel"] + p["n_proj"]["bias"]
  log_g = np.where(n >= 0, np.log(np.maximum(n, 0) + 0.5), -np.logaddexp(0, -n))
  decay = np.cumsum(-np.logaddexp(0, k), axis=1)
  log_h = decay + np.logaddexp.accumulate(-np.logaddexp(0, -k) + log_g - decay, axis=1)
  np.testing.assert_allclose(jax.jit(module.apply)(v, X), np.exp(log_h), rtol=2e-5)


def test_min_gru_outputs_are_averages_of_candidates():
  """Convex combinations with the zero before the first token: never beyond the largest candidate."""
  module, v = noisy("min_gru")
  p = v["params"]["n_proj"]
  bound = np.abs(X @ p["kernel"] + p["bias"]).max(axis=(1,))
  assert (np.abs(jax.jit(module.apply)(v, X)).max(axis=1) <= bound).all()


@pytest.mark.parametrize("scale", [300.0, -300.0])
def test_slstm_gates_do_not_overflow(scale):
  """exp(300) has no float32: the stabilised state stays finite, in value and gradient, and n is at least 1."""
  module, v = noisy("slstm", heads=2, forget="exp")
  v["params"]["bias"] = v["params"]["bias"].at[0].add(scale)

  def loss(v):
    y, state = module.apply(v, X, module.init_state(2, T), method="prefill")
    return jnp.sum(y**2), (y, state)

  gradient, (y, state) = jax.jit(jax.grad(loss, has_aux=True))(v)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((gradient, y, state)))
  assert (state.n >= 1).all()


def test_slstm_heads_do_not_mix():
  """R and W are block-diagonal; only the convolution, channel by channel, stands before them."""
  module, v = noisy("slstm", heads=3)
  jacobian = jax.jit(jax.jacobian(lambda x: module.apply(v, x[None])[0, -1]))(X[0])  # "d t d"
  by_head = np.abs(jacobian).reshape(3, 2, T, 3, 2).max(axis=(1, 2, 4))
  assert (np.diag(by_head) > 1e-6).all()
  np.testing.assert_array_equal(by_head - np.diag(np.diag(by_head)), 0)


@pytest.mark.parametrize("layer, power", [(0, 0.3), (3, 1.6)])
def test_slstm_forgets_along_a_power_law(layer, power):
  """5 - 12 (j / (k-1))^(0.3 + 1.3 place) in every head, other biases and R at zero, W of variance 2 / (5 d)."""
  module, v = initial("slstm", width=64, heads=2, layer=layer, depth=4)
  p = v["params"]
  head = 5 - 12 * (np.arange(32) / 31) ** power
  expected = np.zeros((4, 64))
  expected[1] = np.tile(head, 2)
  np.testing.assert_allclose(p["bias"], expected, atol=1e-5)
  np.testing.assert_array_equal(p["R"], 0)
  np.testing.assert_allclose(np.mean(np.square(p["z_proj"]["kernel"])), 2 / (5 * 64), rtol=0.1)


@pytest.mark.parametrize(
  "name, kwargs, reason",
  [
    ("rnn", dict(activation="gelu"), r"activation='gelu'; choose from \['tanh', 'relu'\]"),
    ("gru", dict(reset_gate="torch"), r"reset_gate='torch'; choose from \['before', 'after'\]"),
    ("min_gru", dict(expand=0), "expand=0; it must be at least 1"),
    ("min_gru", dict(candidate="log"), r"candidate='log'; choose from \['linear', 'positive'\]"),
    ("slstm", dict(heads=4), "heads=4 does not divide width=6"),
    ("slstm", dict(taps=0), "taps=0; it must be at least 1"),
    ("slstm", dict(forget="linear"), r"forget='linear'; choose from \['sigmoid', 'exp'\]"),
  ],
)
def test_what_does_not_fit_is_named_when_the_model_is_built(name, kwargs, reason):
  with pytest.raises(ValueError, match=reason):
    build(name, width=D, **kwargs)
