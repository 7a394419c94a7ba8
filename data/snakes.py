"""Images of Pathfinder: two dashed curves, shorter ones that distract, and two discs (Linsley et al. 2018; LRA).

The procedure of arXiv:1805.08315 in its program `snakes2.py`, with the settings of the Long Range Arena (Tay et al.
2021, arXiv:2011.04006). A curve is a chain of paddles (short lines). The next paddle begins on a circle around the
pivot behind the last one, likelier straight ahead: weight max(cos(min(continuity · turn, 90°)), 0)², times what the
mask of everything drawn before leaves free. A curve that has no way on is given up; both target curves start again
then, a distracting curve up to five times.

Where a paddle is drawn at integer coordinates its picture depends on its angle alone, and a mask is asked only where a
paddle may be: so pictures are kept, and an image takes milliseconds.

Departs: the last paddle of both target curves, and of the other one while they grow, bars the way as well: there the
program's curves may touch. A distracting curve begins where its first paddle has room, while the program looks one
pixel aside and gives most of them up in images of 32 pixels: 1.2 of five are left there, 4.8 here
(docs/results/generators.md). Lines are drawn by distance, not by PIL. No single paddles (the program's wrapper has
none).
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from data import draws

# pictures are drawn this many times as large
FINE = 2
RETRIES, CURVE_RETRIES = 2, 4
# a place is taken where a mask is above the first; two masks overlap where their sum reaches the second
TAKEN, OVERLAP = 0.3, 1.8
# random places tried before all of an image are looked at
GUESSES = 64
Point = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Level:
  """The settings of one size of images; lengths in pixels."""

  side: int
  padding: int
  paddle: int
  thickness: float
  margins: tuple[int, ...]
  seed_distance: int
  disc: float
  continuity: float
  distracting: int  # paddles of all distracting curves together
  brightness: float


LEVELS = {
  32: Level(32, 1, 2, 0.5, (1,), 7, 1.5, 1.0, 20, 2 * 0.75),
  64: Level(64, 1, 5, 1.0, (1,), 12, 2.5, 1.8, 22, 0.8),
  128: Level(128, 1, 5, 1.5, (2, 3), 20, 3.0, 1.8, 35, 0.9),
  256: Level(256, 22, 5, 2.0, (3,), 27, 5.0, 1.8, 30, 1.0),
}
CONTOURS = (6, 9, 14)


class Paddle(NamedTuple):
  """The picture and the mask of a paddle around the whole point (y, x) it starts at, and where that is above TAKEN."""

  line: np.ndarray
  mask: np.ndarray
  taken: np.ndarray  # `n 2`


class Drawing(NamedTuple):
  """An image, its label, and the curves: lists of (start, angle) of paddles, the two targets first."""

  image: np.ndarray  # uint8 `side side`
  label: int  # 1: both discs are at the ends of one curve
  curves: list[list[tuple[Point, float]]]
  discs: tuple[Point, Point]


class Numbers:
  """Random numbers of one image, as many as it takes."""

  def __init__(self, seed: int, stream: str, row: int):
    self._make = lambda part: draws.bits(seed, f"pathfinder/{stream}/{part}", row, 1, 1024)[0].tolist()
    self._part, self._left = 0, self._make(0)

  def bits(self) -> int:
    """Returns a uniform integer of 32 bits."""
    if not self._left:
      self._part += 1
      self._left = self._make(self._part)
    return self._left.pop()

  def below(self, n: int) -> int:
    """Returns a uniform integer in 0 … n - 1."""
    return self.bits() * n >> 32

  def unit(self) -> float:
    """Returns a uniform number inside (0, 1)."""
    return (self.bits() + 0.5) * 2.0**-32

  def angle(self) -> float:
    """Returns a whole number of degrees in [-180, 180), in radians."""
    return math.radians(self.below(360) - 180)


class Canvas:
  """The image and the mask of an image in the making, with a border so that nothing is drawn outside of the arrays."""

  def __init__(self, level: Level, margin: int):
    self.level, self.margin = level, margin
    self.border = 2 * (level.paddle + margin) + FINE * 4 + math.ceil(level.disc)
    n = level.side + 2 * self.border
    self.image, self.mask = np.zeros((n, n), np.float32), np.ones((n, n), np.float32)
    inside = slice(self.border + level.padding, self.border + level.side - level.padding)
    self.mask[inside, inside] = 0

  def copy(self) -> "Canvas":
    """Returns a canvas of its own with the same contents."""
    other = object.__new__(Canvas)
    other.__dict__.update(self.__dict__, image=self.image.copy(), mask=self.mask.copy())
    return other

  def view(self, array: np.ndarray, point: Point, picture: np.ndarray) -> np.ndarray:
    """Returns the part of an array that a picture around a point covers."""
    reach = len(picture) // 2
    y, x = point[0] + self.border - reach, point[1] + self.border - reach
    return array[y : y + len(picture), x : x + len(picture)]

  def put(self, array: np.ndarray, point: Point, picture: np.ndarray) -> None:
    """Draws a picture where it is brighter."""
    part = self.view(array, point, picture)
    np.maximum(part, picture, out=part)

  def has(self, point: Point) -> bool:
    """Returns whether a point is inside of the image."""
    return 0 <= point[0] < self.level.side and 0 <= point[1] < self.level.side

  def paddle(self, angle: float) -> Paddle:
    """Returns the pictures of a paddle."""
    return paddle(angle, self.level.paddle, self.level.thickness, self.margin)

  def free(self) -> float:
    """Returns the share of the image that is not taken."""
    inside = slice(self.border, self.border + self.level.side)
    return float((self.mask[inside, inside] <= TAKEN).mean())


class Growing:
  """A curve that grows: its last paddle bars the others, and itself only once there is another."""

  def __init__(self, canvas: Canvas, start: Point, angle: float):
    self.paddles = [(start, angle)]
    self.angle = angle
    head = translate(start, angle, canvas.level.paddle)
    self.pivot = translate(head, angle + math.pi, canvas.level.paddle + canvas.margin)
    self.fits = canvas.has(head) and canvas.has(self.pivot)
    self.tip = start

  def last(self, canvas: Canvas) -> tuple[Point, np.ndarray]:
    """Returns the last paddle's start and mask."""
    start, angle = self.paddles[-1]
    return start, canvas.paddle(angle).mask

  def extend(self, canvas: Canvas, numbers: Numbers, other: "Growing | None" = None) -> bool:
    """Adds a paddle, and the last one to the mask; False where there is no way on."""
    level, reach = canvas.level, canvas.level.paddle + canvas.margin
    pivot = translate(self.pivot, self.angle, level.paddle + 2 * canvas.margin)
    barred = canvas.mask
    if other is not None:
      barred = canvas.mask.copy()
      canvas.put(barred, *other.last(canvas))
    ways = ways_on(reach, self.angle, level.continuity, canvas.margin, barred.shape[1])
    # outside of the image all is taken
    corner = (pivot[0] + canvas.border) * barred.shape[1] + pivot[1] + canvas.border
    weight = ways.weight * (1 - barred.ravel()[ways.cells + corner].max(axis=1))
    share = np.cumsum(weight)
    if share[-1] < 1e-4:
      return False
    for _ in range(RETRIES + 1):
      pick = min(int(np.searchsorted(share, numbers.unit() * share[-1])), len(share) - 1)
      y, x, angle = ways.points[pick]
      head, back = (pivot[0] + y, pivot[1] + x), flipped(angle)
      mask = canvas.paddle(back).mask
      if (canvas.view(barred, head, mask) + mask).max() < OVERLAP:
        canvas.put(canvas.mask, *self.last(canvas))
        self.paddles.append((head, back))
        self.pivot, self.angle, self.tip = pivot, angle, head
        return True
    return False

  def finish(self, canvas: Canvas, brightness: float) -> None:
    """Adds the last paddle to the mask and draws the curve."""
    canvas.put(canvas.mask, *self.last(canvas))
    for start, angle in self.paddles:
      canvas.put(canvas.image, start, brightness * canvas.paddle(angle).line)


def draw(seed: int, stream: str, row: int, side: int, contour: int) -> Drawing:
  """Draws the image of a row of a stream; each is a function of these alone."""
  numbers, level = Numbers(seed, stream, row), LEVELS[side]
  label = numbers.below(2)
  margin = level.margins[numbers.below(len(level.margins))]
  targets, canvas = until(lambda: two_curves(Canvas(level, margin), numbers, contour))
  curves = [curve.paddles for curve in targets]
  short = max(contour // 3, 1)
  for _ in range(level.distracting // short):
    for _ in range(CURVE_RETRIES + 1):
      trial = canvas.copy()
      distractor = one_curve(trial, numbers, short)
      if distractor is not None:
        canvas = trial
        curves.append(distractor.paddles)
        break
  first = numbers.below(2)
  ends = targets[first].paddles[0][0], targets[first if label else 1 - first].tip
  for end in ends:
    canvas.put(canvas.image, end, disc(level.disc))
  inside = slice(canvas.border, canvas.border + side)
  image = np.rint(255 * np.clip(canvas.image[inside, inside], 0, 1)).astype(np.uint8)
  return Drawing(image, label, curves, ends)


def until(make: Callable[[], "tuple[list[Growing], Canvas] | None"]) -> tuple[list[Growing], Canvas]:
  """Calls `make` until it returns something."""
  while True:
    result = make()
    if result is not None:
      return result


def two_curves(canvas: Canvas, numbers: Numbers, contour: int) -> tuple[list[Growing], Canvas] | None:
  """Grows both target curves in turn; returns None where one has no way on."""
  level = canvas.level
  lowest, highest = 2 * level.seed_distance, level.side - 2 * level.seed_distance
  for _ in range(RETRIES + 1):
    start = lowest + numbers.below(highest - lowest), lowest + numbers.below(highest - lowest)
    one = Growing(canvas, start, numbers.angle())
    if one.fits:
      break
  for _ in range(RETRIES + 1):
    angle, where = numbers.angle(), math.radians(numbers.below(360))
    start = (
      one.tip[0] + round(level.seed_distance * math.sin(where)),
      one.tip[1] + round(level.seed_distance * math.cos(where)),
    )
    two = Growing(canvas, start, angle)
    if two.fits and canvas.has(start):
      break
  if not (one.fits and two.fits and canvas.has(start)):
    return None
  for _ in range(contour - 1):
    if not (one.extend(canvas, numbers, two) and two.extend(canvas, numbers, one)):
      return None
  for curve in (one, two):
    curve.finish(canvas, level.brightness)
  return [one, two], canvas


def one_curve(canvas: Canvas, numbers: Numbers, paddles: int) -> Growing | None:
  """Grows a distracting curve anywhere where there is room; returns None where it has no way on."""
  for _ in range(RETRIES + 1):
    if canvas.free() < 0.01:
      return None
    angle = numbers.angle()
    start = free_place(canvas, numbers, canvas.paddle(angle).taken)
    if start is None:
      return None
    curve = Growing(canvas, start, angle)
    if curve.fits:
      break
  if not curve.fits or not all(curve.extend(canvas, numbers) for _ in range(paddles - 1)):
    return None
  curve.finish(canvas, canvas.level.brightness)
  return curve


def free_place(canvas: Canvas, numbers: Numbers, taken: np.ndarray) -> Point | None:
  """Draws a point at which no point of `taken`, around it, is taken; returns None where there is none."""
  side, border = canvas.level.side, canvas.border
  guesses = np.array([numbers.bits() for _ in range(GUESSES)]) * (side * side) >> 32
  corners = np.stack([guesses // side, guesses % side], axis=1)
  points = corners[:, None] + taken + border
  fine = (canvas.mask[points[..., 0], points[..., 1]] <= TAKEN).all(axis=1)
  if fine.any():
    y, x = corners[fine.argmax()].tolist()
    return y, x
  # rare, and as uniform as the guesses are
  room = np.ones((side, side), bool)
  for y, x in taken + border:
    room &= canvas.mask[y : y + side, x : x + side] <= TAKEN
  left = np.flatnonzero(room)
  return None if not len(left) else divmod(int(left[numbers.below(len(left))]), side)


def translate(point: Point, angle: float, distance: float) -> Point:
  """Moves a point, and rounds each coordinate up."""
  y, x = point[0] + distance * math.sin(angle), point[1] + distance * math.cos(angle)
  # what is whole but for rounding stays
  return math.ceil(y - 1e-9), math.ceil(x - 1e-9)


def flipped(angle: float) -> float:
  """Returns the opposite direction, in (-π, π]."""
  return float(angle + np.pi if angle <= 0 else angle - np.pi)


class Ways(NamedTuple):
  """The ways a curve may go on from a pivot: points, straighter ones with larger weights."""

  points: list[tuple[int, int, float]]  # y, x and angle from the pivot
  weight: np.ndarray
  cells: np.ndarray  # of the disc around each point, as places of a flat array relative to the pivot's


@functools.lru_cache(maxsize=8192)
def ways_on(radius: int, angle: float, continuity: float, margin: int, width: int) -> Ways:
  """Returns the different points of a circle, taken at steps of a pixel and rounded down, whose weight is not 0."""
  around = np.arange(0, 2 * np.pi, 1 / radius)
  points = np.unique(np.floor(radius * np.stack([np.sin(around), np.cos(around)], axis=1) + 1e-9).astype(int), axis=0)
  angles = np.arctan2(points[:, 0], points[:, 1])
  turn = np.abs(angles - angle) % (2 * np.pi)
  weight = np.cos(np.minimum(np.minimum(turn, 2 * np.pi - turn) * continuity, np.pi / 2)) ** 2
  some = weight > 1e-12
  points, angles, weight = points[some], angles[some], weight[some]
  around = points[:, None] + disc_points(margin)
  listed = [(int(y), int(x), float(z)) for (y, x), z in zip(points, angles)]
  return Ways(listed, weight, around[..., 0] * width + around[..., 1])


@functools.lru_cache(maxsize=64)
def disc_points(radius: int) -> np.ndarray:
  """Returns the whole points of a disc around 0, `n 2`."""
  span = np.arange(-radius, radius + 1)
  y, x = np.meshgrid(span, span, indexing="ij")
  inside = y**2 + x**2 <= radius**2
  return np.stack([y[inside], x[inside]], axis=1)


@functools.lru_cache(maxsize=8192)
def paddle(angle: float, length: int, thickness: float, margin: int) -> Paddle:
  """Draws a paddle that starts at a whole point, FINE times as large, then reduced."""
  reach = length + margin + 3
  y, x = fine_grid(reach)
  along = y * math.sin(angle) + x * math.cos(angle)
  across = np.abs(x * math.sin(angle) - y * math.cos(angle))
  half = max(thickness * FINE, 1) / 2
  line = (along >= -0.5) & (along <= length * FINE + 0.5) & (across <= half)
  points = np.argwhere(line) - reach * FINE
  near = ((y[..., None] - points[:, 0]) ** 2 + (x[..., None] - points[:, 1]) ** 2).min(axis=-1)
  mask = reduced(near <= (margin * FINE) ** 2)
  return Paddle(reduced(line), mask, np.argwhere(mask > TAKEN) - reach)


@functools.lru_cache(maxsize=16)
def disc(radius: float) -> np.ndarray:
  """Draws a filled disc."""
  y, x = fine_grid(math.ceil(radius) + 3)
  return reduced(y**2 + x**2 <= (radius * FINE) ** 2)


def fine_grid(reach: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns coordinates, FINE to a pixel, of a square of 2 · reach + 1 pixels around a point."""
  span = np.arange((2 * reach + 1) * FINE) - reach * FINE
  y, x = np.meshgrid(span, span, indexing="ij")
  return y, x


def reduced(picture: np.ndarray) -> np.ndarray:
  """Reduces a picture to 1 / FINE of its size by Lanczos' filter of three lobes, within 0 … 1."""
  n = len(picture) // FINE
  centre = (np.arange(n)[:, None] + 0.5) * FINE - 0.5
  z = (np.arange(n * FINE) - centre) / FINE
  kernel = np.where(np.abs(z) < 3, np.sinc(z) * np.sinc(z / 3), 0)
  kernel /= kernel.sum(axis=1, keepdims=True)
  return np.clip(kernel @ picture.astype(float) @ kernel.T, 0, 1).astype(np.float32)
