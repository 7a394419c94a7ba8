"""Pathfinder's images against their definition: labels, curves that do not touch, discs at their ends, and files."""

import functools
import math

import numpy as np
import pytest

from data import pathfinder, snakes
from data.task import build_task
from scripts import make_pathfinder

COUNTS = {32: 30, 64: 10, 128: 5, 256: 5}


@functools.cache
def drawings(side):
  return [snakes.draw(0, "test", row, side, 14) for row in range(COUNTS[side])]


def points(curve, length):
  """Points of all paddles of a curve, four a pixel."""
  steps = np.linspace(0, length, 4 * length + 1)
  return np.array([(y + t * math.sin(a), x + t * math.cos(a)) for (y, x), a in curve for t in steps])


def distance(a, b):
  return math.sqrt(np.square(a[:, None] - b).sum(-1).min())


@pytest.mark.parametrize("side,least", [(32, 0.2), (64, 0.5), (128, 2), (256, 3)])
def test_curves_do_not_touch_and_have_their_lengths(side, least):
  level = snakes.LEVELS[side]
  for drawing in drawings(side):
    lengths = [len(curve) for curve in drawing.curves]
    assert lengths[:2] == [14, 14]
    assert set(lengths[2:]) == {4}
    assert len(lengths) <= 2 + level.distracting // 4
    lines = [points(curve, level.paddle) for curve in drawing.curves]
    assert min(distance(lines[i], lines[j]) for i in range(len(lines)) for j in range(i)) > least
    for line in lines:
      assert line.min() > -1
      assert line.max() < side
    for curve in drawing.curves:
      centres = points([(start, angle) for start, angle in curve], level.paddle).reshape(len(curve), -1, 2).mean(1)
      gaps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
      # paddles follow each other at their length and twice a margin, but for the first, whose pivot is rounded twice
      assert gaps[1:].min() > level.paddle * 0.7
      assert gaps.max() < level.paddle + 2 * max(level.margins) + 3


def test_paddles_go_on_rather_straight():
  turns = []
  for drawing in drawings(64):
    for curve in drawing.curves:
      # the first paddle points forwards, the others back
      angles = np.array([angle + math.pi * (i > 0) for i, (_, angle) in enumerate(curve)])
      turns += [*np.abs((np.diff(angles) + math.pi) % (2 * math.pi) - math.pi)]
  # weight cos² of 1.8 times the turn: none beyond 50 degrees
  assert max(turns) <= math.pi / 2 / 1.8 + 1e-6
  assert 0.2 < np.mean(turns) < 0.45


@pytest.mark.parametrize("side", [32, 64, 128])
def test_the_label_says_whether_both_discs_are_on_one_curve(side):
  for drawing in drawings(side):
    starts = {curve[0][0]: i for i, curve in enumerate(drawing.curves[:2])}
    ends = {curve[-1][0]: i for i, curve in enumerate(drawing.curves[:2])}
    first, last = drawing.discs
    assert drawing.label == (starts[first] == ends[last])
    assert min(drawing.image[first], drawing.image[last]) > 240


def test_labels_are_balanced_and_discs_on_either_curve():
  labels = [snakes.Numbers(0, "train/32/14", row).below(2) for row in range(4000)]
  assert abs(np.mean(labels) - 0.5) < 5 * 0.5 / np.sqrt(4000)
  chosen = [drawing.discs[0] == drawing.curves[0][0][0] for side in (32, 64) for drawing in drawings(side)]
  assert 0.2 < np.mean(chosen) < 0.8
  assert 0.2 < np.mean([drawing.label for side in (32, 64) for drawing in drawings(side)]) < 0.8


def test_brightness_is_that_of_the_level():
  image = drawings(64)[0].image
  without = image.copy()
  for y, x in drawings(64)[0].discs:
    without[max(y - 5, 0) : y + 6, max(x - 5, 0) : x + 6] = 0
  assert 0.6 * 255 < without.max() <= 0.8 * 255 + 1
  assert (image == 0).mean() > 0.6


def test_a_reduced_picture_keeps_its_mean():
  picture = np.random.default_rng(0).random((60, 60)) * 0.5 + 0.25
  assert abs(snakes.reduced(picture)[5:-5, 5:-5].mean() - picture[10:-10, 10:-10].mean()) < 0.01
  assert np.allclose(snakes.reduced(np.ones((20, 20))), 1)
  assert snakes.disc(3.0).sum() == pytest.approx(math.pi * 9, rel=0.1)


def test_files_hold_the_images_that_would_be_drawn(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(pathfinder, "SHARD", 4)
  for split, seed in (("train", 5), ("validation", 0), ("test", 0)):
    for shard in range(2):
      make_pathfinder.make_shard(tmp_path, (seed, split, shard, 32, 6))
  fields = dict(batch=4, contour=6, seed=5, train_rows=8, eval_rows=6)
  plain, stored = build_task("pathfinder", **fields), build_task("pathfinder", dir=str(tmp_path), **fields)
  for rows in (lambda task: task.training_rows(3, 9), lambda task: next(task.eval_sets()["test"]())):
    assert all(np.array_equal(rows(plain)[key], rows(stored)[key]) for key in ("inputs", "targets"))
  assert plain.describe() == stored.describe()
  with pytest.raises(ValueError, match="./dev pathfinder --side 32 --contour 6 --seed 6"):
    build_task("pathfinder", dir=str(tmp_path), **fields | {"seed": 6}).training_rows(0, 1)
  (tmp_path / pathfinder.shard_name(5, "train", 0, 32, 6)).write_bytes(b"short")
  pathfinder.opened.cache_clear()
  with pytest.raises(ValueError, match="pathfinder_32_6_train_5_0000.npy"):
    stored.images(5, "train", np.arange(1))
  assert make_pathfinder.main([]) == 2
  assert "give --out" in capsys.readouterr().err


def test_a_sheet_has_64_samples_of_each_label(monkeypatch):
  monkeypatch.setattr(make_pathfinder, "SAMPLES", 4)
  monkeypatch.setattr(make_pathfinder, "ACROSS", 2)
  assert make_pathfinder.sheet(32, 6, 0).shape == (68, 68 + 17 + 68)


def test_pixels_are_scaled():
  unit = build_task("pathfinder", train_rows=2).training_rows(0, 1)["inputs"]
  centred = build_task("pathfinder", train_rows=2, scale="centred").training_rows(0, 1)["inputs"]
  assert (unit.min(), unit.max()) == (0, 1)
  assert np.allclose(centred, 2 * unit - 1)
  tokens = build_task("pathfinder", train_rows=2, scale="tokens")
  assert (tokens.vocab, tokens.features, build_task("pathfinder").features) == (256, None, 1)
  np.testing.assert_array_equal(tokens.training_rows(0, 1)["inputs"], np.rint(255 * unit[..., 0]))
