"""minGRU: initial values, the form in logarithms, and the bound of its outputs."""

import functools

import jax
import numpy as np

from ssm.rnn.min_gru import MinGRU
from tests.initial import made

SMALL = {"": dict(expand=2)}
ORACLE = {"": dict(expand=2), "positive": dict(candidate="positive")}
REFUSED = [
  (dict(expand=0), "expand=0; it must be at least 1"),
  (dict(candidate="log"), "candidate='log'; choose from ['linear', 'positive']"),
]

D, T = 6, 9
X = jax.random.normal(jax.random.key(1), (2, T, D))


def count(d, expand=1):
  """Gate and candidate with bias, and an output map where the state is wider."""
  return 2 * expand * d * (d + 1) + (expand > 1) * d * (expand * d + 1)


initial = functools.partial(made, MinGRU, width=D)


def noisy(**kwargs):
  module, v = initial(**kwargs)
  keys = iter(jax.random.split(jax.random.key(2), 20))
  return module, jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(next(keys), leaf.shape), v)


def test_starts_as_linear_layers_of_pytorch():
  """Uniform up to the root of the fan-in, weights and biases, 64 in and 128 out."""
  p = initial(width=64, expand=2)[1]["params"]
  for name, bound in {"z_proj": 1 / 8, "n_proj": 1 / 8, "out_proj": 128**-0.5}.items():
    for leaf in (p[name]["kernel"], p[name]["bias"]):
      np.testing.assert_allclose([leaf.min(), leaf.max()], [-bound, bound], rtol=0.1)


def test_in_logarithms_is_the_same():
  """App. B: log h_t as a cumulative log-sum-exp, which needs positive candidates; here in float64."""
  module, v = noisy(candidate="positive")
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
  module, v = noisy()
  p = v["params"]["n_proj"]
  bound = np.abs(X @ p["kernel"] + p["bias"]).max(axis=(1,))
  assert (np.abs(jax.jit(module.apply)(v, X)).max(axis=1) <= bound).all()
