"""minGRU: initial values, the form in logarithms, and the bound of its outputs."""

import jax
import numpy as np

from ssm.rnn.min_gru import MinGRU
from tests.hybrids.filled import filled
from tests.initial import uniform

SMALL = {"": dict(expand=2)}
ORACLE = {"": dict(expand=2), "positive": dict(candidate="positive")}
REFUSED = [
  (dict(expand=0), "expand=0; it must be at least 1"),
  (dict(candidate="log"), "candidate='log'; choose from ['linear', 'positive']"),
]
# As linear layers of PyTorch: uniform up to the root of the fan-in, weights and biases, 64 in and 128 out.
INITIAL = [
  (
    dict(width=64, expand=2),
    {"z_proj z_proj/bias n_proj n_proj/bias": uniform(1 / 8, 0.1), "out_proj out_proj/bias": uniform(128**-0.5, 0.1)},
  )
]

D, T = 6, 9
X = jax.random.normal(jax.random.key(1), (2, T, D))


def count(d, expand=1):
  """Gate and candidate with bias, and an output map where the state is wider."""
  return 2 * expand * d * (d + 1) + (expand > 1) * d * (expand * d + 1)


def test_in_logarithms_is_the_same():
  """App. B: log h_t as a cumulative log-sum-exp, which needs positive candidates; here in float64."""
  module = MinGRU(width=D, candidate="positive")
  v = filled(module, X)
  p = jax.tree.map(lambda leaf: np.asarray(leaf, float), v["params"])
  x = np.asarray(X, float)
  k = x @ p["z_proj"]["kernel"] + p["z_proj"]["bias"]
  n = x @ p["n_proj"]["kernel"] + p["n_proj"]["bias"]
  log_g = np.where(n >= 0, np.log(np.maximum(n, 0) + 0.5), -np.logaddexp(0, -n))
  decay = np.cumsum(-np.logaddexp(0, k), axis=1)
  log_h = decay + np.logaddexp.accumulate(-np.logaddexp(0, -k) + log_g - decay, axis=1)
  np.testing.assert_allclose(jax.jit(module.apply)(v, X), np.exp(log_h), rtol=2e-5)


def test_outputs_are_averages_of_candidates():
  """Convex combinations with the zero before the first token: never beyond the largest candidate."""
  module = MinGRU(width=D)
  v = filled(module, X)
  p = v["params"]["n_proj"]
  bound = np.abs(X @ p["kernel"] + p["bias"]).max(axis=(1,))
  assert (np.abs(jax.jit(module.apply)(v, X)).max(axis=1) <= bound).all()
