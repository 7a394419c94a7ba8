"""Hyena: small sizes, parameter count, oracle, refusals; its filters' windows and initial values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ssm.lti.hyena import Hyena
from tests.initial import made, normal, uniform

SMALL = {
  "": dict(filter_width=6, filter_depth=1),
  "heads": dict(heads=2, outer_mixing=True, filter_width=6, filter_depth=1),
  "third order": dict(order=3, filter_width=4, features=5, taps=2),
}
ORACLE = {
  "": dict(max_len=30, filter_width=5),
  "heads": dict(order=3, heads=2, outer_mixing=True, max_len=30, filter_width=5),
  "third order": dict(
    order=3,
    max_len=40,
    filter_width=4,
    filter_depth=1,
    features=7,
    frequency=10.0,
    share_frequency=False,
    taps=2,
    shift=0.1,
  ),
}
REFUSED = [
  (dict(order=1), "order=1; it must be at least 2"),
  (dict(heads=3), "heads=3 does not divide width=8"),
  (dict(heads=0), "heads=0 does not divide width=8"),
  (dict(features=1), "features=1; it must be at least 3"),
  (dict(features=4), "features=4; the lag and pairs of cosine and sine make an odd number"),
  (dict(taps=0), "taps=0; it must be at least 1"),
  (dict(fast_decay=2.0), "fast_decay=2.0, slow_decay=1.5"),
  (dict(floor=0.0), "floor=0.0; a window falls from 1 to that"),
]
# As the authors' code draws them: PyTorch's uniform for all maps, standard normal b, the given frequency.
INITIAL = [
  (
    dict(width=128, order=3, filter_width=32, features=9, frequency=14.0),
    {
      "in_proj in_proj/bias out_proj out_proj/bias": uniform(128**-0.5, 0.15),
      "filter_layers_0 filter_layers_0/bias": uniform(9**-0.5, 0.15),
      "filter_layers_1 filter_layers_1/bias": uniform(32**-0.5, 0.15),
      "filter_out": normal((3 * 32) ** -0.5),
      "b": normal(1, 0.2),
      "w": np.full((1, 32), 14.0),
    },
  )
]
TRAINED = {"undecayed": {"b", "w"}}


def count(d, order=2, filter_width=64, filter_depth=2, features=3, taps=3, heads=1, **_):
  """In and out with biases, short convolution; filters: first, inner and last map, frequencies; b."""
  inner, f, filtered = (order + 1) * d, filter_width, (order - 1) * d // heads
  filters = (features + 1) * f + filter_depth * (f + 1) * f + f * filtered + f
  return (d + 1) * (inner + d) + inner * (taps + 1) + filters + filtered


initial = functools.partial(made, Hyena, width=4)


def filters(module, variables, l):
  return np.asarray(jax.jit(lambda v: module.apply(v, l, method="_filters"))(variables))


def with_params(variables, **values):
  return {"params": {**variables["params"], **values}}


def test_windows_reach_the_floor_after_their_shares_of_the_length():
  """Flat filters leave the windows: of order 3, whose filters share the range of decays by turns."""
  module, variables = initial(order=3, max_len=101, filter_width=2, features=5)
  flat = {f"filter_layers_{i}": jax.tree.map(jnp.zeros_like, variables["params"][f"filter_layers_{i}"]) for i in (0, 1)}
  last = {**variables["params"]["filter_layers_2"], "kernel": jnp.zeros((2, 2)), "bias": jnp.full(2, np.pi / 2)}
  out = {"kernel": jnp.full((2, 8), 0.5)}
  b = jnp.zeros((2, 4))
  h = filters(module, with_params(variables, **flat, filter_layers_2=last, filter_out=out, b=b), 101)
  np.testing.assert_allclose(h[:, :, 0], 1, rtol=1e-5)
  np.testing.assert_allclose(h[1, 3, 30], 1e-2, rtol=1e-4)
  np.testing.assert_allclose(h[0, 0, 75] ** 2, 1e-2, rtol=1e-4)
  rates = -np.log(h[:, :, 1]).T.reshape(-1)
  np.testing.assert_allclose(np.diff(rates), np.full(7, np.diff(rates)[0]), rtol=1e-2)


def test_shorter_sequences_see_the_beginning_of_the_same_filters():
  module, variables = initial(max_len=64)
  np.testing.assert_allclose(filters(module, variables, 9), filters(module, variables, 64)[..., :9], atol=1e-6)
