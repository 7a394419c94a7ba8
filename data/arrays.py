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
from typing import Any, ClassVar

import numpy as np

from data import events, forecast, pipeline
from data.array_checks import check, refuse_any
from data.base import Stored
from data.pipeline import Batch
from data.sequences import TABLES, Sequences, column_names, kind_of, read
from data.splits import SPLITS, covered, renamed, shares
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
    predict: a "label", a "number", or the "next" value, `horizon` steps after `length` steps: of the columns `targets`
      (by blanks), which are among the inputs, or of the first feature where the file is no table.
    ahead: a forecast predicts the "last" of the next `horizon` steps, or "each", step by step.
    from_last: forecasts and their columns of the inputs are less the last value that is read, so that a model which
      answers 0 repeats it, as in NLinear (Zeng et al. 2023, arXiv:2205.13504).
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
  ahead: str = "last"
  from_last: bool = False

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
      ("ahead", self.ahead in forecast.AHEAD, f"choose from {forecast.AHEAD}"),
      ("ahead", self.ahead == "last" or self.predict == "next", "'last', as data.predict is no 'next'"),
      ("from_last", not self.from_last or self.predict == "next", "false, as data.predict is no 'next'"),
      ("from_last", not (self.from_last and self.tokens), "false, as tokens have no differences"),
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
    is_forecast = self.predict == "next"
    if is_forecast and kind_of(path) not in TABLES:
      names["targets"] = ""
    data = read(path, names, layout=self.layout, pattern=self.pattern, forecast=is_forecast)
    check(self, data)
    return data

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
      outside = np.flatnonzero((targets < 0) | (targets >= self.labels))
      refuse_any(outside, len(targets), f"labels are outside 0 … {self.labels - 1}", source=self.source)
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
      unknown = np.flatnonzero(~np.isin(splits, SPLITS))
      refuse_any(unknown, len(splits), f"splits are none of {SPLITS}", source=self.source)
    if not self.validation and (data.split is None or not (splits != "train").any()):
      raise Mistake(
        f"data.validation=0, but {self.source} has no test split of its own, so that nothing is left to evaluate on; "
        "give a share above 0, e.g. 0.1"
      )
    if self.predict == "next":
      own = None if data.split is None else splits
      held = {"validation": self.validation, "test": self.test}
      return forecast.rows(data, own, length=self.length, horizon=self.horizon, source=self.source, **held)
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
    lines = [told(self.data, self.sizes, classes=self.classes, vocab=self.vocab, left_out=left_out)]
    if self.predict == "next":
      begins = {split: rows[:, 0] for split, rows in self.rows.items() if split != "train"}
      lines.append(forecast.repeated(self._series, begins, **self._asked))
    return "\n".join(filter(None, lines))

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
      batch["inputs"], answers = self._forecast(rows[:, 0], batch["inputs"])
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

  @property
  def _asked(self) -> dict[str, Any]:
    return {"length": self.length, "horizon": self.horizon, "ahead": self.ahead}

  @functools.cached_property
  def _series(self) -> np.ndarray:
    """Returns the columns that are forecast, as the inputs have them, `steps columns`."""
    names = column_names(self.targets, self.data.inputs) if self.data.inputs else []
    values = self.data.values[:, : len(names) or 1].astype(np.float64)
    mean, deviation = (each[: values.shape[1]] for each in self.scale)
    return (values - mean) / deviation if self.normalise else values

  def _forecast(self, begins: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs and answers of windows, both less the last value of each column with `from_last`."""
    answers = forecast.answers(self._series, begins, **self._asked)
    if self.from_last:
      last = self._series[begins + self.length - 1]
      answers = answers - np.tile(last, answers.shape[1] // last.shape[1])
      inputs = np.concatenate([inputs[..., : last.shape[1]] - last[:, None], inputs[..., last.shape[1] :]], axis=-1)
    return inputs.astype(np.float32), answers.astype(np.float32)

  def _fitting(self, sizes: np.ndarray) -> np.ndarray:
    longest = self.data.lengths
    if self.longer == "refuse" and self.predict != "next":
      what = f"sequences have more than data.length={self.length} steps"
      refuse_any(np.flatnonzero(longest > self.length), len(longest), what, source=self.source)
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
