"""S4ND: its kernel, its initial values, and its names and sizes."""

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssm.lti.s4d import S4D
from ssm.lti.s4nd import S4ND
from tests.oracles import s4nd as oracle


def initial(module, t=12):
  return nn.unbox(jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, t, module.width))))


@pytest.mark.slow
def test_an_image_of_one_row_is_s4d_from_left_to_right_and_back():
  """The kernel along the other axis has one tap, which only scales."""
  module = S4ND(width=3, state=4, rows=1, activation="none")
  p = initial(module)["params"]
  x = jax.random.normal(jax.random.key(1), (1, 9, 3))
  one_way = S4D(width=3, state=4, activation="none")
  ways = []
  for way, given in ((0, x), (1, jnp.pad(x[:, :0:-1], ((0, 0), (1, 0), (0, 0))))):
    names = ("A_log", "A_im", "B_re", "B_im", "log_dt")
    q = {name: p[f"column_{name}"] for name in names} | {
      f"C_{part}": p[f"column_C_{part}"][0, way] for part in ("re", "im")
    }
    ways.append(one_way.apply({"params": q | {"D": jnp.zeros(3)}}, given))
  down = module.apply({"params": p}, "row", 1, method="_taps")[0, :, 0]
  expected = down * (ways[0] + ways[1][:, ::-1]) + p["D"] * x
  np.testing.assert_allclose(module.apply({"params": p}, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_video_of_one_frame_is_an_image():
  """The kernel along the frames has one tap, which only scales."""
  module, image = S4ND(width=3, state=4, dim=3, frames=1, columns=4), S4ND(width=3, state=4, columns=4)
  p = initial(module)["params"]
  scale = module.apply({"params": p}, "frame", 1, method="_taps")[0, :, 0, None]
  q = {name: value for name, value in p.items() if not name.startswith("frame")}
  q |= {name: scale * q[name] for name in ("row_C_re", "row_C_im")}
  x = jax.random.normal(jax.random.key(1), (2, 12, 3))
  np.testing.assert_allclose(module.apply({"params": p}, x), image.apply({"params": q}, x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_video_is_the_sum_over_all_pairs_of_pixels():
  """Where no side is 1: two frames of three rows and two columns."""
  with jax.enable_x64(True):
    module = S4ND(width=2, state=2, dim=3, frames=2, columns=2, rank=2)
    p = jax.tree.map(lambda z: jnp.asarray(z, jnp.float64), initial(module)["params"])
    x = jax.random.normal(jax.random.key(1), (1, 12, 2), jnp.float64)
    flat = flax.traverse_util.flatten_dict(p, sep="/")
    expected = oracle.run({name: np.asarray(value) for name, value in flat.items()}, np.asarray(x), sizes=(2, 3, 2))
    np.testing.assert_allclose(module.apply({"params": p}, x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_without_a_low_rank_part_dplr_is_diagonal():
  dplr, diagonal = (S4ND(width=2, state=4, structure=name, disc="bilinear") for name in ("dplr", "diagonal"))
  p = initial(dplr)["params"]
  q = {name: value for name, value in p.items() if "_P_" not in name}
  none = {name: jnp.zeros_like(value) for name, value in p.items() if "_P_" in name}
  x = jax.random.normal(jax.random.key(1), (2, 12, 2))
  np.testing.assert_allclose(dplr.apply({"params": p | none}, x), diagonal.apply({"params": q}, x), atol=1e-4)


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


@pytest.mark.parametrize(
  "kwargs, reason",
  [
    (dict(state=5), "state=5; conjugate pairs are stored once"),
    (dict(rank=0), "rank=0; it must be at least 1"),
    (dict(A_init="fout"), "A_init='fout'; choose from .* for structure='diagonal'"),
    (dict(A_init="lin", structure="dplr"), r"A_init='lin'; choose from \['legs', 'fout'\] for structure='dplr'"),
    (dict(structure="dense"), "structure='dense'; choose from"),
    (dict(dim=1), r"dim=1; choose from \[2, 3\]"),
    (dict(frames=2), "frames=2, but dim=2 is an image; set dim=3"),
    (dict(activation="relu"), "activation='relu'; choose from"),
    (dict(dt_max=1e-4), "dt_min=0.001, dt_max=0.0001"),
  ],
)
def test_what_does_not_fit_is_named_when_the_model_is_built(kwargs, reason):
  with pytest.raises(ValueError, match=reason):
    S4ND(width=8, **kwargs)


def test_sides_that_do_not_match_the_sequence_are_refused():
  module = S4ND(width=2, state=2, rows=3)
  with pytest.raises(ValueError, match="S4ND: rows=3 does not divide the 4 tokens"):
    jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 4, 2)))
