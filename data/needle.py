"""Passkey retrieval, a needle in a haystack: a number is hidden at some depth of a long text and asked for at its end.

The protocol of Mohtashami & Jaggi 2023 (arXiv:2305.16300, sec. 4.2) in bytes, so that no tokenizer is needed: filler
sentences that repeat, among them once the sentence with the number, five digits, the first not 0; then the question
and the number. Only its digits are scored, each from those before it; chance is 1 in 10.

With several `keys` each number has a capital letter for a name, one of which is asked for: the others distract, as in
RULER's multi-key needles (arXiv:2404.06654).

Departs: the sentences are ours. Needles stand at sentence boundaries, the nearest to their depth.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np

from data import draws
from data.generated import EVAL_SEED, Generated, length_sets
from data.pipeline import Batch

FILLER = (
  b"Rain fell on the hills. A dog slept by the door. The train was late. Bread was in the oven. Boats came home. "
)
DIGITS = 5
KEY, NUMBER = ord("@"), ord("#")
NEEDLE = {False: b"The code is #####. Keep it: #####. ", True: b"The code of @ is #####. Keep it: #####. "}
QUESTION = {False: b"\nWhat is the code? The code is #####", True: b"\nWhat is the code of @? The code of @ is #####"}


@dataclasses.dataclass(frozen=True)
class Needle(Generated):
  """Find the needle in bytes of text; each row is filled to exactly `length`.

  Attributes:
    keys: numbers hidden, of which one is asked for.
    eval_lengths: bytes of a row, with one evaluation set for each depth; without any, data.length.
    eval_depths: of the needle asked for, 0 is the start of the filler, 100 its end; one set 'length_L_depth_D' each.
  Raises:
    Mistake: a row has no room for the needles, or a depth is not in 0 … 100.
  """

  batch: int = 16
  length: int = 1024
  vocab: int = 256
  eval_rows: int = 100
  keys: int = 1
  eval_lengths: tuple[int, ...] = ()
  eval_depths: tuple[int, ...] = (0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)

  def __post_init__(self) -> None:
    self.require_sizes()
    self.require("vocab", self.vocab >= 128, "at least 128 (the text is ASCII)")
    self.require("keys", 1 <= self.keys <= 26, "1 … 26 letters")
    least = self.keys * len(self.needle) + len(self.question)
    self.require("length", self.length >= least, f"at least {least} for {self.keys} needles and the question")
    self.require("eval_lengths", all(n >= least for n in self.eval_lengths), f"at least {least} each")
    depths = self.eval_depths
    self.require("eval_depths", bool(depths) and all(0 <= d <= 100 for d in depths), "per cent, 0 … 100")

  @property
  def needle(self) -> bytes:
    """Returns the sentence that hides a number."""
    return NEEDLE[self.keys > 1]

  @property
  def question(self) -> bytes:
    """Returns the question, with room for the answer."""
    return QUESTION[self.keys > 1]

  def training_rows(self, first: int, rows: int) -> Batch:
    """Returns rows of the endless training stream; the depths are uniform. See `Generated.training_rows`."""
    return self.sample(self.seed, "train", first, rows, self.length, None)

  def validation_rows(self, first: int, rows: int) -> Batch:
    """Returns validation rows of all depths; see `Generated.validation_rows`."""
    return self.sample(EVAL_SEED, "validation", first, rows, self.length, None)

  def evaluation_rows(self, size: tuple[int, int], first: int, rows: int) -> Batch:
    """Returns rows of the fixed evaluation set of one (length, depth in per cent)."""
    return self.sample(EVAL_SEED, f"validation/{size[0]}/{size[1]}", first, rows, *size)

  def eval_sets(self, process_index: int = 0, process_count: int = 1) -> dict[str, Callable[[], Iterator[Batch]]]:
    """Returns a set 'length_L_depth_D' for each of `eval_lengths` and `eval_depths`."""
    lengths = self.eval_lengths or (self.length,)
    sets = {f"length_{n}_depth_{d}": ((n, d), n) for n in lengths for d in self.eval_depths}
    return length_sets(self.evaluation_rows, sets, self, self.eval_rows * max(lengths), process_index, process_count)

  def sample(self, seed: int, stream: str, first: int, rows: int, length: int, depth: int | None) -> Batch:
    """Returns `rows` rows of one stream; `depth`: of the needle asked for in per cent, None for any."""
    u = draws.bits(seed, f"needle/{stream}", first, rows, 26 + self.keys * (1 + DIGITS))
    names = ord("A") + draws.distinct(u[:, : self.keys], 26)
    depths = draws.unit(u[:, 26 : 26 + self.keys])
    # the first needle is the one asked for
    depths[:, 0] = depths[:, 0] if depth is None else depth / 100
    digits = draws.below(u[:, 26 + self.keys :].reshape(rows, self.keys, DIGITS), 10)
    digits[..., 0] = 1 + draws.below(u[:, 26 + self.keys :: DIGITS], 9)
    question = self._filled(self.question, names, digits, 0)
    text = np.concatenate([self._haystack(length, names, depths, digits), question], axis=1)
    # the answer's last digit is a target only
    inputs = np.concatenate([np.full((rows, 1), ord("\n")), text[:, :-1]], axis=1).astype(np.int32)
    weights = np.zeros(text.shape, np.float32)
    weights[:, -DIGITS:] = 1
    return {"inputs": inputs, "targets": text.astype(np.int32), "weights": weights}

  def _filled(self, template: bytes, names: np.ndarray, digits: np.ndarray, which: int) -> np.ndarray:
    """Returns the template with the name and the number of one needle, bytes `rows n`."""
    text = np.tile(np.frombuffer(template, np.uint8), (len(names), 1))
    text[:, text[0] == KEY] = names[:, which : which + 1]
    positions = np.flatnonzero(text[0] == NUMBER)
    text[:, positions] = ord("0") + np.tile(digits[:, which], len(positions) // DIGITS)
    return text

  def _haystack(self, length: int, names: np.ndarray, depths: np.ndarray, digits: np.ndarray) -> np.ndarray:
    """Returns all bytes before the question: filler, and needles at the sentence boundaries nearest to their depths."""
    size = len(self.needle)
    room = length - len(self.question) - self.keys * size
    ends = boundaries(room)
    nearest = ends[np.abs(depths[..., None] * room - ends).argmin(axis=-1)]
    # needles at one boundary stand in the order of their depths
    order = np.argsort(depths, axis=1, kind="stable")
    starts = np.take_along_axis(nearest, order, axis=1) + size * np.arange(self.keys)
    filler = np.resize(np.frombuffer(FILLER, np.uint8), room)
    text = np.zeros((len(names), room + self.keys * size), np.uint8)
    free = np.ones(text.shape, bool)
    row = np.arange(len(names))[:, None]
    needles = np.stack([self._filled(self.needle, names, digits, i) for i in range(self.keys)], axis=1)
    for i in range(self.keys):
      span = starts[:, i : i + 1] + np.arange(size)
      text[row, span] = np.take_along_axis(needles, order[:, i, None, None], axis=1)[:, 0]
      free[row, span] = False
    text[free] = np.tile(filler, len(names))
    return text


@functools.lru_cache(maxsize=16)
def boundaries(room: int) -> np.ndarray:
  """Returns where sentences begin in `room` bytes of filler."""
  text = np.resize(np.frombuffer(FILLER, np.uint8), room)
  stops = np.flatnonzero((text[:-1] == ord(".")) & (text[1:] == ord(" "))) + 2 if room > 1 else np.zeros(0, int)
  return np.concatenate([[0], stops[stops < room]])
