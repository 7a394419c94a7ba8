"""Sides of images, and images packed into one sequence."""

import jax.numpy as jnp
import numpy as np
import pytest

from layers import images


def sides(t, *given):
  return images.sides("x", t, dict(zip(("frames", "rows", "columns")[-len(given) :], given)))


def test_sides_are_as_near_to_each_other_as_factors_can_be():
  assert [sides(t, None, None) for t in (1, 7, 12, 1024, 3072)] == [(1, 1), (1, 7), (3, 4), (32, 32), (48, 64)]
  assert sides(12, None, 6) == (2, 6)
  assert sides(12, 6, None) == (6, 2)
  assert [sides(t, None, None, None) for t in (1, 14, 24, 64)] == [(1, 1, 1), (2, 1, 7), (2, 3, 4), (4, 4, 4)]
  assert sides(96, None, 4, None) == (4, 4, 6)


@pytest.mark.parametrize(
  "rows, columns, reason",
  [
    (5, None, "x: rows=5 does not divide the 12 tokens of the sequence"),
    (None, 0, "x: columns=0 does not divide the 12 tokens"),
    (3, 3, "x: rows=3 times columns=3 is not 12, the length of the sequence"),
  ],
)
def test_sides_that_do_not_match_the_sequence_are_named(rows, columns, reason):
  with pytest.raises(ValueError, match=reason):
    sides(12, rows, columns)


# Images of 4 columns: of 1 1/2 rows, of 1 pixel, of 2 rows. Videos, whose frames have 2 rows and 3 columns: of 2 1/2
# frames, of a pixel, of 5 pixels, of a frame and a pixel.
IMAGES = dict(inner=(4,), taps=(3, 4), starts=[0, 6, 7], end=15, t=16)
VIDEOS = dict(inner=(2, 3), taps=(2, 3, 3), starts=[0, 15, 16, 21], end=28, t=30)


@pytest.mark.parametrize(
  "origin, packed",
  [
    *((origin, IMAGES) for origin in ((0, 0), (2, 1), (1, 3))),
    *(pytest.param(origin, VIDEOS, marks=pytest.mark.slow) for origin in ((0, 0, 0), (1, 2, 1))),
  ],
)
def test_packed_images_and_videos_are_convolved_alone(origin, packed):
  inner, taps, starts, end, t = packed.values()
  rng = np.random.default_rng(0)
  x, k = rng.standard_normal((1, t, 2)).astype(np.float32), rng.standard_normal((2, *taps)).astype(np.float32)
  reset = jnp.asarray(np.isin(np.arange(t), starts)[None])
  run = lambda x, **masks: images.convolve(jnp.asarray(x), jnp.asarray(k), origin=origin, inner=inner, **masks)
  y = run(np.where(np.arange(t)[:, None] < end, x, 0), reset=reset, lengths=jnp.array([end]))
  for first, last in zip(starts, [*starts[1:], end]):
    # 1 1/2 rows are filled up to two, 2 1/2 frames to three
    alone = np.zeros((1, 8 if packed is IMAGES else 18, 2), np.float32)
    alone[:, : last - first] = x[:, first:last]
    np.testing.assert_allclose(y[:, first:last], run(alone)[:, : last - first], rtol=1e-4, atol=1e-5)
