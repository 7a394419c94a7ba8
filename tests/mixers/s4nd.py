"""S4ND: small sizes, parameter count, oracle, refusals; videos, one way, the band limit, and initial values."""

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssm.lti.s4nd import S4ND
from tests.initial import variables
from tests.oracles import s4nd as oracle

SMALL = {"": dict(state=4, rank=2), "DPLR": dict(state=4, structure="dplr"), "video": dict(state=2, dim=3)}
ORACLE = {
  "": (dict(state=4, rank=2), dict(sizes=(2, 7))),
  "DPLR": (dict(state=4, rank=2, structure="dplr", A_init="fout"), dict(sizes=(2, 7))),
  "video": (dict(state=4, dim=3), dict(sizes=(2, 1, 7))),
  "tall": (dict(state=2, columns=1, disc="bilinear"), dict(sizes=(14, 1))),
}
SLOW = ("tall",)
REFUSED = [
  (dict(state=5), "state=5; conjugate pairs are stored once"),
  (dict(rank=0), "rank=0; it must be at least 1"),
  (dict(A_init="fout"), "A_init='fout'; choose from ['lin', 'inv', 'legs', 'real'] for structure='diagonal'"),
  (dict(A_init="lin", structure="dplr"), "A_init='lin'; choose from ['legs', 'fout'] for structure='dplr'"),
  (dict(structure="dense"), "structure='dense'; choose from"),
  (dict(dim=1), "dim=1; choose from [2, 3]"),
  (dict(frames=2), "frames=2, but dim=2 is an image; set dim=3"),
  (dict(activation="relu"), "activation='relu'; choose from"),
  (dict(dt_max=1e-4), "dt_min=0.001, dt_max=0.0001"),
  (dict(rows=3), "S4ND: rows=3 does not divide the 2 tokens"),
  (dict(bandlimit=0.0), "S4ND: bandlimit=0.0; it must be above 0"),
  (dict(step_rescale=-1.0), "S4ND: step_rescale=-1.0"),
]
TRAINED = {
  "slow": {
    f"{axis}_{name}"
    for axis in ("frame", "row", "column")
    for name in ("A_log", "A_im", "P_re", "P_im", "B_re", "B_im", "log_dt")
    if axis != "frame" or name[0] != "P"
  }
}


def count(d, state, rank=1, dim=2, structure="diagonal"):
  """Along each axis A, B and perhaps P in every channel, C for each rank both ways, dt; D; the map to 2d with bias."""
  return dim * (d * state * (2 + (structure == "dplr") + 2 * rank) + d) + d + 2 * d * (d + 1)


def initial(module, t=12):
  return variables(module, jnp.zeros((1, t, module.width)))


@pytest.mark.slow
def test_a_video_is_the_sum_over_all_pairs_of_pixels():
  """Where no side is 1: two frames of three rows and two columns."""
  with jax.enable_x64(True):
    module = S4ND(width=2, state=2, dim=3, frames=2, columns=2, rank=2)
    p = jax.tree.map(lambda z: jnp.asarray(z, jnp.float64), initial(module)["params"])
    x = jax.random.normal(jax.random.key(1), (1, 12, 2), jnp.float64)
    flat = flax.traverse_util.flatten_dict(p, sep="/")
    expected = oracle.run({name: np.asarray(value) for name, value in flat.items()}, np.asarray(x[0]), sizes=(2, 3, 2))
    np.testing.assert_allclose(module.apply({"params": p}, x)[0], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_one_way_sees_nothing_to_the_right_or_below():
  module = S4ND(width=1, state=2, columns=3, bidirectional=False, activation="none")
  variables = initial(module)
  jacobian = jax.jacobian(lambda x: module.apply(variables, x)[0, :, 0])(jnp.ones((1, 12, 1)))[:, 0, :, 0]
  row, column = np.divmod(np.arange(12), 3)
  sees = (row[:, None] >= row) & (column[:, None] >= column)
  size = np.abs(jacobian).max()
  assert np.abs(np.where(sees, 0, jacobian)).max() < 1e-6 * size
  assert np.abs(jacobian[sees]).min() > 1e-5 * size


@pytest.mark.slow
def test_what_turns_faster_than_the_band_is_cut():
  p = initial(S4ND(width=2, state=8, A_init="lin", activation="none"))
  taps = lambda **kwargs: S4ND(width=2, state=8, A_init="lin", **kwargs).apply(p, "row", 5, method="_taps")
  p["params"]["row_log_dt"] = jnp.full(2, jnp.log(0.1))
  np.testing.assert_array_equal(taps(bandlimit=10.0), taps())
  # modes turn by 0, 0.1, 0.2 and 0.3 of half a turn, and by twice as much on an image of half the resolution
  for kept, rescale in ((2, 1.0), (1, 2.0)):
    parts = {name: p["params"][name].at[..., kept:].set(0) for name in ("row_C_re", "row_C_im")}
    module = S4ND(width=2, state=8, A_init="lin", step_rescale=rescale)
    expected = module.apply({"params": p["params"] | parts}, "row", 5, method="_taps")
    np.testing.assert_allclose(taps(bandlimit=0.15, step_rescale=rescale), expected, atol=1e-6)


def test_initial_values():
  p = initial(S4ND(width=256, state=16, rank=2))["params"]
  for axis in ("row", "column"):
    np.testing.assert_allclose(np.mean(p[f"{axis}_C_re"] ** 2 + p[f"{axis}_C_im"] ** 2), 1, rtol=0.05)
    np.testing.assert_allclose(np.log10(np.quantile(np.exp(p[f"{axis}_log_dt"]), [0, 0.5, 1])), [-3, -2, -1], atol=0.2)
  assert np.abs(p["row_log_dt"] - p["column_log_dt"]).max() > 0.1
