"""ListOps and Pathfinder, the generated tasks of the Long Range Arena."""

import itertools
import math
import time
from collections.abc import Callable

import numpy as np
from scipy.spatial.distance import cdist

from data import draws, listops, snakes
from data.task import build_task
from scripts.generators.table import Line, Table, agreement, law, mean, parts, quantiles, uniform

OPERATORS: dict[int, Callable[[list[int]], int]] = {
  listops.MIN: min,
  listops.MAX: max,
  listops.MED: lambda values: int(np.median(values)),
}
OPERATORS |= {listops.SM: lambda values: sum(values) % 10}
# Pathfinder's images of each size, as many as minutes allow
IMAGES = {32: 2000, 64: 1000, 128: 500, 256: 200}
CONTOUR = 14


def expressions(rows: int, seed: int) -> Table:
  """Measures ListOps at the published bounds."""
  batch = build_task("listops").sample(seed, "train", 0, rows)
  lengths, targets = batch["lengths"], batch["targets"]
  read = [value(inputs[:length].tolist()) for inputs, length in zip(batch["inputs"], lengths)]
  depths = np.array([depth for _, depth in read])
  # a quarter of all trees have an operator at the root, and only these are grown
  sizes = np.concatenate(
    [listops.expressions(draws.bits(seed, "statistics", first, 500, 6000), 2000)[2] for first in range(0, rows, 500)]
  )
  lines = [
    mean("tokens of a row", lengths, "about 1,038", 1),
    quantiles("5, 50 and 95 % of them", lengths, (5, 50, 95), "539 / 958 / 1,798"),
    Line("fewest and most", "501 and 1,999 at the extremes", f"{lengths.min():,} and {lengths.max():,}"),
    mean("share of all trees that is kept", ((sizes > 500) & (sizes < 2000)) / 4, "0.083", 4),
    agreement("targets are the values, worked out with a stack", (value == t for (value, _), t in zip(read, targets))),
    law("operator at the root", batch["inputs"][:, 0] - listops.MIN, np.full(4, 1 / 4), "uniform on four"),
    parts("labels 0 … 9", targets, 10, "follows from the law"),
    Line("depth, mean and most", "at most 10, leaves included", f"{depths.mean():.2f}, {depths.max()}"),
  ]
  return Table("ListOps", f"{rows:,} training rows of seed {seed}, lengths above 500 and below 2,000.", lines)


def value(tokens: list[int]) -> tuple[int, int]:
  """Works out an expression, and returns its value and its depth."""
  stack: list[list[int]] = [[]]
  deepest = 0
  for token in tokens:
    if token == listops.CLOSE:
      operator, *values = stack.pop()
      stack[-1].append(OPERATORS[operator](values))
    elif token >= listops.MIN:
      stack.append([token])
    else:
      stack[-1].append(token - listops.DIGIT)
      deepest = max(deepest, len(stack))
  return stack[0][0], deepest


def curves(side: int, share: float, seed: int) -> Table:
  """Measures Pathfinder's images of one size."""
  count, level, stream = max(20, int(IMAGES[side] * share)), snakes.LEVELS[side], f"train/{side}/{CONTOUR}"
  began = time.process_time()
  drawings = [snakes.draw(seed, stream, row, side, CONTOUR) for row in range(count)]
  seconds = (time.process_time() - began) / count
  long = np.array([len(curve) for drawing in drawings for curve in drawing.curves[:2]])
  short = np.array([len(curve) for drawing in drawings for curve in drawing.curves[2:]])
  many = np.array([len(drawing.curves) - 2 for drawing in drawings])
  gaps = np.array([nearest(drawing, level.paddle) for drawing in drawings])
  first = np.array([drawing.discs[0] != drawing.curves[0][0][0] for drawing in drawings])
  bright = np.array([(drawing.image > 0).mean() for drawing in drawings])
  most = level.distracting // (CONTOUR // 3)
  lines = [
    mean("share of label 1", np.array([drawing.label for drawing in drawings]), "1/2"),
    agreement("label 1 is: both discs on one curve", (on_one_curve(d) == bool(d.label) for d in drawings)),
    uniform("which of the two curves has the first disc", first.astype(int), 0, 1),
    Line("paddles of the two long curves", f"{CONTOUR}", span(long)),
    Line("paddles of the others", f"{CONTOUR // 3}", span(short)),
    Line("how many others", f"at most {most}", f"{many.mean():.2f} on average, {many.min()} … {many.max()}"),
    agreement("no two curves touch", gaps > 0.1),
    Line("pixels between the nearest two, least and mean", "–", f"{gaps.min():.2f}, {gaps.mean():.2f}"),
    Line(
      "images in which two curves cross, between paddles", "–", f"{sum(crossed(d, level.paddle) for d in drawings):,}"
    ),
    Line("share of the pixels that is not black", "–", f"{bright.mean():.3f}"),
    Line("CPU seconds an image, one core, others at work", "–", f"{seconds:.3f}"),
  ]
  return Table(f"Pathfinder, {side} pixels a side", f"{count:,} images of seed {seed}, contours of {CONTOUR}.", lines)


def span(values: np.ndarray) -> str:
  """Names the only number there is, or the least and the largest."""
  return f"{values.min()}" if values.min() == values.max() else f"{values.min()} … {values.max()}"


def on_one_curve(drawing: snakes.Drawing) -> bool:
  """Finds the curves that begin or end at the discs."""
  starts = {curve[0][0]: i for i, curve in enumerate(drawing.curves[:2])}
  ends = {curve[-1][0]: i for i, curve in enumerate(drawing.curves[:2])}
  return starts[drawing.discs[0]] == ends[drawing.discs[1]]


def crossed(drawing: snakes.Drawing, length: int) -> bool:
  """Returns whether the paths of two curves cross: through their paddles, and from each to the next."""
  return any(meet(path(one, length), path(other, length)) for one, other in itertools.combinations(drawing.curves, 2))


def path(curve: list[tuple[snakes.Point, float]], length: int) -> np.ndarray:
  """Returns the ends of a curve's paddles in turn; the first paddle points forwards, the others back."""
  ends = [((y, x), (y + length * math.sin(a), x + length * math.cos(a))) for (y, x), a in curve]
  return np.array([point for i, pair in enumerate(ends) for point in (pair if i == 0 else pair[::-1])])


def meet(one: np.ndarray, other: np.ndarray) -> bool:
  """Returns whether any two segments of two paths cross."""

  def side(a: np.ndarray, b: np.ndarray, points: np.ndarray) -> np.ndarray:
    along, to = b - a, points[None] - a[:, None]
    return np.sign(along[:, None, 0] * to[..., 1] - along[:, None, 1] * to[..., 0])

  across = side(one[:-1], one[1:], other)
  back = side(other[:-1], other[1:], one)
  return bool(((across[:, :-1] * across[:, 1:] < 0) & (back[:, :-1] * back[:, 1:] < 0).T).any())


def nearest(drawing: snakes.Drawing, length: int) -> float:
  """Returns the pixels between the middles of the nearest two curves' lines."""
  steps = np.linspace(0, length, 4 * length + 1)
  lines = [
    np.array([(y + t * math.sin(a), x + t * math.cos(a)) for (y, x), a in curve for t in steps])
    for curve in drawing.curves
  ]
  return min(cdist(one, other).min() for one, other in itertools.combinations(lines, 2))
