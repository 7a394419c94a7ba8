"""Sequences in files of arrays: classify them, predict a number of each, or forecast the next value of a series.

data/sequences.py reads .npz, .npy, .h5, .csv, .parquet, idx and folders of .wav. What is wrong with the data is counted
and said in one line: empty sequences, labels outside the classes, values that are not finite, sequences beyond the
length, shapes that disagree with what a config declares.

A file has splits of its own (`split`), or shares of its sequences are held out, whatever the seed; sequences of one
group stay together. Where its own splits lack a validation part, a share of the training part is held out. A forecast
holds out the end of each series, unless the file says of each series, or run of a table's rows, which split it is.
Features are normalised by mean and standard deviation of the training part.
"""

import dataclasses
import functools
import hashlib
import pathlib
from typing import Any, ClassVar

import numpy as np

from data import events, pipeline
from data.base import Stored
from data.pipeline import Batch
from data.sequences import TABLES, Sequences, kind_of, numbers, read
from data.splits import SPLITS, covered, renamed, shares, windows
from data.told import told
from mistake import Mistake

PREDICTS = ("label", "number", "next")
LAYOUTS = ("steps", "pixels")
LONGER = ("refuse", "cut")


@dataclasses.dataclass(frozen=True)
class Arrays(Stored):
  """Predict a label, a number or the next value for each sequence.

  Attributes:
    dir, files: a file or a folder of .wav, `files` relative to `dir`.
    predict: a "label", a "number", or the "next" value, `horizon` steps after `length` steps: of the column `targets`,
      which is one of the inputs, or of the first feature where the file is no table.
    inputs, targets, offsets, lengths, times, groups, split, sequence: names of arrays or columns, empty for none. Of a
      table, `inputs` are several by blanks, all the others if empty, and rows of equal `sequence` are its steps.
    pattern: a regular expression for names of .wav files, with (?P<label>…) and maybe group and split.
    unit: of the times, for `dt`, the gap before each step.
    gap: before every step of a row, where there are no times; 0 for none. It is 2 for data sampled half as often as
      those that a model was trained on.
    layout: "steps", or "pixels" of images "n h w" or "n h w c".
    tokens: a vocabulary, where inputs are tokens; 0 where they are features.
    channels, labels, length: features a step, classes, and steps of the longest sequence; 0 to take them from the data,
      which is then read as soon as the task is made. A forecast needs `length`.
    longer: whether sequences beyond `length` are an error ("refuse") or lose their end ("cut", counted).
    validation, test: shares held out where there is no `split`; validation=0 with a test split of its own evaluates on
      that alone and trains on the whole training part, as several papers chose models.
    normalise: features by mean and standard deviation of the training part.
    balanced: training rows weigh n / (classes · rows of their class).
  """

  batch: int = 32
  length: int = 0
  seed: int = 0
  dir: str = ""
  files: str = ""
  predict: str = "label"
  inputs: str = "x"
  targets: str = "y"
  offsets: str = ""
  lengths: str = ""
  times: str = ""
  groups: str = ""
  split: str = ""
  sequence: str = ""
  pattern: str = ""
  unit: float = 1.0
  gap: float = 0.0
  layout: str = "steps"
  tokens: int = 0
  channels: int = 0
  labels: int = 0
  longer: str = "refuse"
  horizon: int = 1
  validation: float = 0.1
  test: float = 0.1
  normalise: bool = True
  balanced: bool = False

  STREAM: ClassVar[str] = "arrays/order"
  stateful: ClassVar[bool] = False

  def __post_init__(self) -> None:
    self.require_all(
      ("batch", self.batch >= 1, "at least 1"),
      ("predict", self.predict in PREDICTS, f"choose from {PREDICTS}"),
      ("layout", self.layout in LAYOUTS, f"choose from {LAYOUTS}"),
      ("longer", self.longer in LONGER, f"choose from {LONGER}"),
      ("validation", 0 <= self.validation < 1, "a share below 1; 0 if there is a test split"),
      ("test", 0 <= self.test < 1 - self.validation, "a share below 1 - data.validation"),
      ("horizon", self.horizon >= 1, "at least 1"),
      ("unit", self.unit > 0, "above 0"),
      ("gap", self.gap >= 0, "above 0, or 0 for none"),
      ("gap", not (self.gap and self.times), "0, as data.times says what the gaps are"),
      ("balanced", not self.balanced or self.predict == "label", "false, as only labels have classes"),
      ("tokens", self.tokens >= 0, "at least 1, or 0 for features"),
      ("length", self.length >= (self.predict == "next"), "at least 1; a forecast says how many steps it reads"),
    )
    self.require("groups", not self.groups or self.predict != "next", "leave it empty: a forecast holds out steps")
    self.require("files", bool(self.files or self.dir), "name a file, or a folder of .wav files")
    for field in ("channels", "labels", "length"):
      if not getattr(self, field):
        object.__setattr__(self, field, getattr(self, f"_read_{field}")())

  @property
  def head(self) -> str:
    """Returns the name of the head: of labels a classifier's, of numbers a regression's."""
    return "classifier" if self.predict == "label" else "regression"

  @property
  def loss(self) -> str:
    """Returns the name of the head's loss."""
    return "cross_entropy" if self.predict == "label" else "mse"

  @property
  def metrics(self) -> tuple[str, ...]:
    """Returns the names of what evaluation reports; two labels have the area under the curve, too."""
    if self.predict != "label":
      return ("loss", "mse", "mae", "r2")
    return ("loss", "accuracy", "f1", "mcc", "auc") if self.labels == 2 else ("loss", "accuracy", "f1")

  @property
  def vocab(self) -> int | None:
    """Returns how many tokens there are, or None where inputs are features."""
    return self.tokens or None

  @property
  def features(self) -> int | None:
    """Returns how many features a step has, or None where inputs are tokens."""
    return None if self.tokens else self.channels

  @property
  def classes(self) -> int | None:
    """Returns how many classes there are, or None where no label is predicted."""
    return self.labels if self.predict == "label" else None

  @property
  def source(self) -> str:
    """Returns how errors name where the sequences come from."""
    return f"data.files={self.files!r}" if self.files else f"data.dir={self.dir!r}"

  @functools.cached_property
  def data(self) -> Sequences:
    """Reads and checks all sequences."""
    path = pipeline.folder("dir", self.dir) / pipeline.folder("files", self.files)
    if not path.exists():
      raise Mistake(f"{str(path)!r} does not exist: check data.dir={self.dir!r} and data.files={self.files!r}")
    kinds = ("inputs", "targets", "offsets", "lengths", "times", "groups", "split", "sequence")
    names = {kind: getattr(self, kind) for kind in kinds}
    forecast = self.predict == "next"
    if forecast and kind_of(path) not in TABLES:
      names["targets"] = ""
    return self._checked(read(path, names, layout=self.layout, pattern=self.pattern, forecast=forecast))

  def _checked(self, data: Sequences) -> Sequences:
    empty = np.flatnonzero(data.lengths == 0)
    self._count(empty, len(data), "sequences are empty")
    if not len(data):
      raise Mistake(f"{self.source} holds no sequence")
    if self.channels and data.values.shape[1] != self.channels:
      raise Mistake(
        f"data.channels={self.channels}, but the steps of {self.files!r} have {data.values.shape[1]} features"
      )
    if self.tokens and data.values.shape[1] != 1:
      raise Mistake(
        f"data.tokens={self.tokens}, but the steps of {self.files!r} have {data.values.shape[1]} numbers, and a token "
        "is one: choose one with data.inputs, or take data.tokens=0 for features"
      )
    if self.tokens:
      wrong = (data.values < 0) | (data.values >= self.tokens)
      if not np.issubdtype(data.values.dtype, np.integer):
        wrong |= data.values != np.floor(data.values)
      self._count(np.flatnonzero(wrong.any(1)), len(data.values), f"steps are no token of 0 … {self.tokens - 1}")
    else:
      self._count(
        np.flatnonzero(~np.isfinite(data.values.astype(float)).all(1)), len(data.values), "steps are not finite"
      )
    if self.predict != "next" and data.targets is None:
      raise Mistake(
        f"data.predict={self.predict!r} needs a target of each sequence, and {self.source} has none: name them with "
        "data.targets, or in data.pattern by (?P<label>…)"
      )
    self._check_targets(data)
    if data.times is not None:
      self._check_times(data)
    return data

  def _check_targets(self, data: Sequences) -> None:
    if self.predict == "next":
      return
    targets = np.asarray(data.targets)
    if self.predict == "number":
      if targets.dtype.kind not in "biuf":
        targets = numbers(pathlib.Path(self.files), self.targets, targets.astype(object).ravel())
      with np.errstate(over="ignore"):
        finite = np.isfinite(targets.astype(np.float32).reshape(len(data), -1)).all(1)
      self._count(np.flatnonzero(~finite), len(data), "targets are not finite")
      return
    if targets.size != len(data):
      raise Mistake(
        f"data.targets={self.targets!r} has the shape {targets.shape}; a label is one for each of the {len(data)} "
        "sequences, a number or a name"
      )
    one = lambda each: isinstance(each, (str, bytes, int, float, np.generic)) and each == each and each not in ("", b"")
    self._count(np.flatnonzero([not one(each) for each in targets.ravel()]), len(data), "labels are missing")

  def _check_times(self, data: Sequences) -> None:
    times = np.asarray(data.times)
    if times.dtype.kind not in "biuf":
      raise Mistake(f"data.times={self.times!r} are {times.dtype}, no numbers")
    self._count(np.flatnonzero(~np.isfinite(times.astype(float))), len(times), "times are not finite")
    # an unsigned difference is never below 0
    back = times[1:] < times[:-1]
    back[data.starts[1:-1] - 1] = False
    self._count(np.flatnonzero(back) + 1, len(times), "times come before the one in front of them; sort the steps")

  def _count(self, wrong: np.ndarray, of: int, what: str) -> None:
    if len(wrong):
      raise Mistake(f"{self.source}: {len(wrong)} of {of} {what}, the first is number {wrong[0]}")

  def _read_channels(self) -> int:
    return self.data.values.shape[1]

  def _read_labels(self) -> int:
    return len(np.unique(np.asarray(self.data.targets))) if self.predict == "label" else 1

  def _read_length(self) -> int:
    return int(self.data.lengths.max())

  @functools.cached_property
  def answers(self) -> np.ndarray:
    """Returns the label (int32 `n`) or number (float32 `n 1`) of each sequence."""
    targets = np.asarray(self.data.targets)
    if self.predict == "number":
      return targets.astype(np.float32).reshape(len(targets), -1)
    targets = targets.ravel()
    if np.issubdtype(targets.dtype, np.integer):
      self._count(
        np.flatnonzero((targets < 0) | (targets >= self.labels)),
        len(targets),
        f"labels are outside 0 … {self.labels - 1}",
      )
      return targets.astype(np.int32)
    names, numbers = np.unique(targets, return_inverse=True)
    if len(names) > self.labels:
      raise Mistake(f"data.labels={self.labels}, but there are {len(names)} different labels: {names[:10].tolist()} …")
    return numbers.astype(np.int32)

  @functools.cached_property
  def rows(self) -> dict[str, np.ndarray]:
    """Returns for each split where its rows begin and which sequence they belong to, int64 `rows 2`."""
    data = self.data
    if data.split is not None:
      splits = renamed(data.split)
      self._count(np.flatnonzero(~np.isin(splits, SPLITS)), len(splits), f"splits are none of {SPLITS}")
    if not self.validation and (data.split is None or not (splits != "train").any()):
      raise Mistake(
        f"data.validation=0, but {self.source} has no test split of its own, so that nothing is left to evaluate on; "
        "give a share above 0, e.g. 0.1"
      )
    if self.predict == "next":
      return self._windows(None if data.split is None else splits)
    groups = np.arange(len(data)) if data.groups is None else data.groups
    if data.split is None:
      splits = shares(groups, validation=self.validation, test=self.test)
    elif "validation" not in splits:
      train = np.flatnonzero(splits == "train")
      splits = splits.astype(object)
      splits[train] = shares(groups[train], validation=self.validation, test=0.0)
    rows = {split: np.flatnonzero(splits == split) for split in SPLITS if (splits == split).any()}
    missing = [split for split in SPLITS[: 1 + (self.validation > 0)] if split not in rows]
    if missing:
      raise Mistake(f"{self.source} has no {missing[0]} sequences; it has {len(data)} in all")
    return {split: np.stack([data.starts[which], which], axis=1) for split, which in rows.items()}

  def _windows(self, splits: np.ndarray | None) -> dict[str, np.ndarray]:
    rows = windows(self.data, splits, reach=self._reach, validation=self.validation, test=self.test)
    wanted = {"train": True, "validation": self.validation > 0, "test": self.test > 0 and splits is None}
    short = [
      split for split in SPLITS if not len(rows[split]) and (wanted[split] or splits is not None and split in splits)
    ]
    if short:
      raise Mistake(f"the {short[0]} part of {self.source} has no {self._reach} steps; lower data.length={self.length}")
    return {split: each for split, each in rows.items() if len(each)}

  @property
  def _reach(self) -> int:
    return self.length + self.horizon

  @functools.cached_property
  def scale(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation of each feature in the training part."""
    data, rows = self.data, self.rows["train"]
    ends = rows[:, 0] + (self._reach if self.predict == "next" else data.lengths[rows[:, 1]])
    part = data.values[covered(rows[:, 0], ends, len(data.values))].astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
      deviation = part.std(axis=0)
    if not np.isfinite(deviation).all():
      feature = np.flatnonzero(~np.isfinite(deviation))[0]
      raise Mistake(f"{self.source}: feature {feature} is too large to be normalised; divide it before")
    return part.mean(axis=0), np.where(deviation > 0, deviation, 1)

  @property
  def _left_out(self) -> dict[str, int]:
    if self.predict != "next":
      return {"cut": int((self.data.lengths > self.length).sum())}
    return {"series without a row": len(self.data) - len(np.unique(np.concatenate([*self.rows.values()])[:, 1]))}

  @property
  def notice(self) -> str:
    """Returns what a run says at its start: what the data are, and what of them is left out."""
    (many,) = self._left_out.values()
    cut = f"sequences are longer than data.length={self.length} and lose their end"
    what = f"series are too short for a row of {self._reach} steps" if self.predict == "next" else cut
    left_out = f"{many} of {len(self.data)} {what}" if many else ""
    return told(self.data, self.sizes, classes=self.classes, vocab=self.vocab, left_out=left_out)

  @property
  def mixed(self) -> bool:
    """Returns whether evaluation mixes the rows: those of a forecast stay in the order of time."""
    return self.predict != "next"

  @property
  def sizes(self) -> dict[str, int]:
    """Returns how many rows each split has."""
    return {split: len(rows) for split, rows in self.rows.items()}

  def take(self, split: str, numbers: np.ndarray) -> Batch:
    """Returns the rows of these numbers; classes are balanced in training."""
    return self.batch_at(self.rows[split][numbers], weigh=split == "train")

  def batch_at(self, rows: np.ndarray, *, weigh: bool = False) -> Batch:
    """Makes the batch of rows (start, sequence)."""
    data, position = self.data, np.arange(self.length)
    sizes = np.full(len(rows), self.length) if self.predict == "next" else data.lengths[rows[:, 1]]
    sizes = self._fitting(sizes)
    valid = position < sizes[:, None]
    index = np.where(valid, rows[:, :1] + position, 0)
    batch = {"inputs": self._inputs(index, valid)}
    if self.predict == "next":
      after = data.values[rows[:, 0] + self.length + self.horizon - 1, :1]
      answers = ((after - self.scale[0][:1]) / self.scale[1][:1] if self.normalise else after).astype(np.float32)
    else:
      answers = self.answers[rows[:, 1]]
    batch |= {"targets": answers, "weights": np.ones(len(rows), np.float32)}
    if weigh and self.balanced and self.predict == "label":
      batch["weights"] = self.class_weights[answers]
    if self.ragged:
      batch["lengths"] = sizes.astype(np.int32)
    if data.times is not None:
      times = np.where(valid, data.times[index], np.take_along_axis(data.times[index], sizes[:, None] - 1, axis=1))
      batch["dt"] = events.gaps(times, unit=self.unit)
    elif self.gap:
      batch["dt"] = np.full((len(rows), self.length), self.gap, np.float32)
    return batch

  def _inputs(self, index: np.ndarray, valid: np.ndarray) -> np.ndarray:
    if self.tokens:
      return np.where(valid, self.data.values[index][..., 0], 0).astype(np.int32)
    mean, deviation = self.scale if self.normalise else (0.0, 1.0)
    return np.where(valid[..., None], (self.data.values[index] - mean) / deviation, 0).astype(np.float32)

  def _fitting(self, sizes: np.ndarray) -> np.ndarray:
    longest = self.data.lengths
    if self.longer == "refuse" and self.predict != "next":
      self._count(
        np.flatnonzero(longest > self.length), len(longest), f"sequences have more than data.length={self.length} steps"
      )
    return np.minimum(sizes, self.length)

  @property
  def ragged(self) -> bool:
    """Returns whether rows have lengths of their own."""
    return self.predict != "next" and bool((self.data.lengths < self.length).any())

  @functools.cached_property
  def class_weights(self) -> np.ndarray:
    """Returns the weight of a training row of each class; a class without rows has 0."""
    counts = np.bincount(self.answers[self.rows["train"][:, 1]], minlength=self.labels)
    return np.where(counts > 0, counts.sum() / (self.labels * np.maximum(counts, 1)), 0).astype(np.float32)

  def describe(self) -> dict[str, Any]:
    """Returns the fields but for the folder, the rows of each split, what was cut, the classes' counts, a checksum."""
    fields = {key: value for key, value in dataclasses.asdict(self).items() if key != "dir"}
    facts: dict[str, Any] = {f"{split} rows": len(rows) for split, rows in self.rows.items()}
    facts |= self._left_out
    checksum = hashlib.sha256(np.ascontiguousarray(self.data.values).tobytes())
    if self.predict != "next":
      checksum.update(self.answers.tobytes())
    if self.predict == "label":
      facts["rows of each class"] = np.bincount(self.answers, minlength=self.labels).tolist()
    return {"task": type(self).__name__, **fields, **facts, "sha256": checksum.hexdigest()}
