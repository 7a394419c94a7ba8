"""SGConv: small sizes, parameter count, oracle, refusals; its kernel's norm, scales and initial values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ssm.lti.sgconv import SGConv
from tests.initial import made

SMALL = {"": dict(taps=4)}
ORACLE = {
  "": dict(taps=3, max_len=40),
  "learned": (dict(taps=4, max_len=28, decay="learned", decay_min=0.5, activation="none"), dict(learned=True)),
  "sum": (
    dict(taps=3, max_len=30, join="sum", interpolation="nearest", decay_min=1.5, activation="gelu"),
    dict(join="sum", interpolation="nearest", decay_min=1.5),
  ),
}
RESUMED = ("",)
REFUSED = [
  (dict(taps=0), "taps=0; it must be at least 1"),
  (dict(join="add"), "join='add'; choose from ['cat', 'sum']"),
  (dict(interpolation="cubic"), "interpolation='cubic'; choose from"),
  (dict(decay="none"), "decay='none'; choose from"),
  (dict(decay_min=3.0), "decay_min=3.0, decay_max=2.0"),
  (dict(activation="relu"), "activation='relu'; choose from"),
]
TRAINED = {"slow": {"scales"}}


def count(d, taps):
  """Kernels at each of 1 + log2(4096 / taps) scales; D; the map to 2d with bias."""
  return taps * d * (13 - taps.bit_length() + 1) + d + 2 * d * (d + 1)


initial = functools.partial(made, SGConv, width=64, activation="none")


def response(module, variables, t):
  """The kernel, as the response to an impulse."""
  x = jnp.zeros((1, t, module.width)).at[0, 0].set(1.0)
  return np.asarray(jax.jit(module.apply)(variables, x)[0].T)


def test_the_initial_kernel_has_norm_one_and_its_parts_are_standard_normal():
  module, variables = initial(taps=8, max_len=64)
  assert variables["params"]["scales"].shape == (4, 64, 8)
  np.testing.assert_allclose(np.std(variables["params"]["scales"]), 1, rtol=0.05)
  K = response(module, variables, 64)
  K = K - np.outer(variables["params"]["D"], np.arange(64) == 0)
  np.testing.assert_allclose(np.linalg.norm(K, axis=1), 1, rtol=1e-5)


def test_the_norm_stays_what_it_was_when_parameters_change():
  module, variables = initial(width=4, taps=4, max_len=16)
  doubled = jax.tree.map(lambda value: 2 * value, variables["params"])
  twice = response(module, {**variables, "params": doubled}, 16)
  np.testing.assert_allclose(twice, 2 * response(module, variables, 16), rtol=1e-4, atol=1e-6)


def test_parameters_grow_by_the_logarithm_of_the_length():
  sizes = [initial(width=1, taps=4, max_len=l)[1]["params"]["scales"].shape[0] for l in (3, 4, 8, 9, 1024)]
  assert sizes == [1, 1, 2, 3, 9]
