"""ImageScan: small sizes, parameter count, refusals; the paths through an image, and that mixers see them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids import mixer as mixer_lib
from hybrids.wrap import ImageScan
from layers.paths import ORDERS, rank
from tests import mixers
from tests.hybrids.filled import filled
from tests.hybrids.toys import Decay, Offers
from tests.mixers.bidirectional import one_way

D = 3
X = jax.random.normal(jax.random.key(3), (2, 6, D))
DECAY = dict(name=Decay)
SMALL = {"": dict(mixer=dict(name="mamba", state=4, dt_rank=2), orders=("column", "snake_reversed"), merge="mean")}
ORACLE = {}
REFUSED = [
  (dict(mixer=dict(name="mlp"), orders=("row", "spiral")), "has ['spiral']; choose from ['column', 'column_reversed'"),
  (dict(mixer=dict(name="mlp"), orders=()), "orders=() has none; choose from"),
  (dict(mixer=dict(name="mlp"), merge="max"), "merge='max'; choose from ['sum', 'mean']"),
  (dict(mixer=dict(name="mlp", tpas=1)), "has no field 'tpas'"),
  (dict(mixer=dict(name="mlp"), rows=4), "image_scan: rows=4 does not divide the 2 tokens of the sequence"),
]
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def count(d, mixer, orders, **_):
  return len(orders) * mixers.count(width=d, **mixer)


@pytest.mark.parametrize(
  "name, path",
  [
    ("row", [0, 1, 2, 3, 4, 5]),
    ("column", [0, 3, 1, 4, 2, 5]),
    ("snake", [0, 1, 2, 5, 4, 3]),
    ("row_reversed", [5, 4, 3, 2, 1, 0]),
    ("column_reversed", [5, 2, 4, 1, 3, 0]),
    ("snake_reversed", [3, 4, 5, 2, 1, 0]),
  ],
)
def test_paths_through_two_rows_of_three(name, path):
  np.testing.assert_array_equal(np.argsort(rank(name, 2, 3)), path)


@pytest.mark.parametrize("side", [1, 2, 4, 16])
def test_hilberts_curve_goes_from_neighbour_to_neighbour(side):
  path = np.argsort(rank("hilbert", side, side))
  row, column = np.divmod(path, side)
  assert (np.abs(np.diff(row)) + np.abs(np.diff(column)) == 1).all()
  np.testing.assert_array_equal(np.argsort(rank("hilbert_reversed", side, side)), path[::-1])


@pytest.mark.parametrize("name", ORDERS)
def test_every_path_visits_every_pixel_once(name):
  np.testing.assert_array_equal(np.sort(rank(name, 3, 5)), np.arange(15))


@pytest.mark.parametrize("merge, shared", [("sum", False), ("mean", True)])
def test_outputs_come_back_to_their_pixels(merge, shared):
  module = ImageScan(width=D, mixer=DECAY, orders=("row", "column", "snake"), merge=merge, shared=shared, columns=3)
  variables = filled(module, X)
  params = variables["params"]
  assert set(params) == {f"paths_{i}" for i in range(1 if shared else 3)}
  y = jax.jit(module.apply)(variables, X)
  for row in range(2):
    expected = np.zeros((6, D))
    for i, path in enumerate(([0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5], [0, 1, 2, 5, 4, 3])):
      expected[path] += one_way(params[f"paths_{0 if shared else i}"], X[row][jnp.array(path)])
    close(y[row], expected / (3 if merge == "mean" else 1))


def test_each_document_is_an_image_of_its_own():
  """Four columns: the first document has a row and a half, the second begins within a row and is cut short."""
  module = ImageScan(width=D, mixer=DECAY, orders=("column",), columns=4)
  x = jax.random.normal(jax.random.key(4), (1, 12, D)).at[0, 11].set(jnp.nan)
  variables = filled(module, jnp.zeros((1, 12, D)))
  reset = jnp.zeros((1, 12), bool).at[0, 6].set(True)
  y = jax.jit(functools.partial(module.apply, reset=reset, lengths=jnp.array([11])))(variables, x)
  params = variables["params"]["paths_0"]
  for first, path in ((0, [0, 4, 1, 5, 2, 3]), (6, [0, 4, 1, 2, 3])):
    tokens = first + np.array(path)
    close(y[0, tokens], one_way(params, x[0, tokens]))
  assert (y[0, 11] == 0).all()


def test_side_inputs_are_read_along_the_path_too():
  module = ImageScan(width=D, mixer=dict(name=Offers), shared=True, orders=("column", "snake"))
  given = jax.random.normal(jax.random.key(4), X.shape)
  close(jax.jit(module.apply)(filled(module, X), X, side={"given": given}), 2 * (jnp.sin(X) + given))


def test_a_config_may_name_orders_in_a_list():
  module = mixer_lib.build("image_scan", width=D, mixer=DECAY, orders=["row", "hilbert"])
  assert hash(module) is not None
  assert module.orders == ("row", "hilbert")
