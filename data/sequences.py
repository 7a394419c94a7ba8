"""Sequences in files of arrays, read into one array with the place where each sequence begins.

.npz, .h5       arrays by name; inputs "n t", "n t f", images "n h w" or "n h w c", or flat with offsets
.npy            one array of inputs
.csv, .parquet  columns by name; a row is a sequence of one number a step, or a step of the sequence it names
idx, idx.gz     inputs, and a second file of labels
a folder        of .wav files, whose folder or name is the label
"""

import contextlib
import csv
import dataclasses
import gzip
import pathlib
import re
import struct
import wave
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from mistake import Mistake, hint

# dtypes of idx files by their third byte
IDX = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
# endings of files that hold a table
TABLES = ("csv", "parquet")
# names of arrays and columns, which a folder of .wav does not have
IN_FILES = ("offsets", "lengths", "times", "groups", "split", "sequence")
# what libraries raise for files they cannot read
UNREADABLE = (
  *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, ArithmeticError, MemoryError),
  *(struct.error, wave.Error, zipfile.BadZipFile, zlib.error, csv.Error, re.error),
)
# bytes of a sample of sound -> its dtype and the value of silence
PCM = {1: ("u1", 128), 2: ("<i2", 0), 4: ("<i4", 0)}


@dataclasses.dataclass(frozen=True)
class Sequences:
  """n sequences, one after the other.

  Attributes:
    values: "total f".
    starts: n + 1 places in `values`.
    targets, groups, split: one of each sequence; None where the files have none.
    times: of each step.
    inputs, unused: names of columns that are read as features, and of arrays that are not read.
    left_out: what of the files is not read -> of how many files.
  """

  values: np.ndarray
  starts: np.ndarray
  targets: np.ndarray | None = None
  groups: np.ndarray | None = None
  split: np.ndarray | None = None
  times: np.ndarray | None = None
  inputs: tuple[str, ...] = ()
  unused: tuple[str, ...] = ()
  left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)

  def __len__(self) -> int:
    return len(self.starts) - 1

  @property
  def lengths(self) -> np.ndarray:
    """Returns the steps of each sequence."""
    return np.diff(self.starts)


def read(
  path: pathlib.Path, names: Mapping[str, str], *, layout: str, pattern: str, forecast: bool = False
) -> Sequences:
  """Reads the sequences of a file or a folder.

  Args:
    names: what ("inputs", "targets", "offsets", "lengths", "times", "groups", "split", "sequence") -> its name in the
      file, empty for what it lacks.
    layout: "steps", or "pixels" for images that are read row by row.
    pattern: a regular expression for names of .wav files, with groups named label, group and split.
    forecast: whether `targets` are columns of the inputs, which come first then; a table without `sequence` is one
      series, or one for each run of rows of equal `split`.
  Raises:
    Mistake: a file or a name is missing, or of no use to such a file; a file is damaged, or shapes disagree.
  """
  kind = kind_of(path)
  with naming(path):
    refuse_idle(path, {**names, "pattern": pattern, "layout": layout.replace("steps", "")})
    if path.is_dir():
      return from_sounds(path, pattern)
    if not path.is_file():
      raise Mistake(f"{str(path)!r} is no file, nor a folder of .wav files")
    if kind in ("npz", "h5", "hdf5"):
      return from_arrays(path, dict(_h5(path) if kind != "npz" else _npz(path)), names, layout)
    if kind == "npy":
      array = np.load(path, allow_pickle=False)
      return from_arrays(path, {names["inputs"]: array}, {**names, "targets": ""}, layout)
    if kind in TABLES:
      return from_columns(path, _csv(path) if kind == "csv" else _parquet(path), names, forecast=forecast)
    if "idx" in path.name or "ubyte" in path.name:
      arrays = {names["inputs"]: read_idx(path)}
      if names["targets"]:
        arrays[names["targets"]] = read_idx(path.parent / names["targets"])
      return from_arrays(path, arrays, names, layout)
  raise Mistake(f"cannot tell what {str(path)!r} is: a folder of .wav, or .npz .npy .h5 .csv .parquet, or an idx file")


def kind_of(path: pathlib.Path) -> str:
  """Returns the ending of a file's name in small letters, without its dot; that beneath of a packed one."""
  return path.name.lower().removesuffix(".gz").rsplit(".", 1)[-1]


def refuse_idle(path: pathlib.Path, names: Mapping[str, str]) -> None:
  """Refuses names that this kind of file has no use for, and which would be left out in silence."""
  idle: tuple[str, ...]
  if path.is_dir():
    idle, why = (*IN_FILES, "layout"), "data.pattern takes label, group and split from the names of .wav files"
  elif kind_of(path) in TABLES:
    idle, why = ("offsets", "lengths", "pattern", "layout"), "steps of one data.sequence are a row each in a table"
  elif names["offsets"]:
    idle, why = ("lengths", "sequence", "pattern", "layout"), "data.offsets says already where sequences begin and end"
  else:
    idle, why = ("sequence", "pattern"), "sequences of arrays are rows, or flat with data.offsets"
  if wrong := [what for what in idle if names[what]]:
    raise Mistake(f"{str(path)!r}: data.{wrong[0]}={names[wrong[0]]!r} is of no use: {why}; leave it out")


@contextlib.contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
  """Turns what libraries raise for a file that is damaged, or something else than its name says, into a Mistake."""
  try:
    yield
  except Mistake:
    raise
  except UNREADABLE as error:
    raise Mistake(f"cannot read {str(path)!r}: {' '.join(str(error).split()) or type(error).__name__}") from None


def from_arrays(path: pathlib.Path, arrays: Mapping[str, Any], names: Mapping[str, str], layout: str) -> Sequences:
  """Makes sequences of named arrays."""

  def take(what: str) -> np.ndarray | None:
    name = names.get(what, "")
    if not name:
      return None
    if name not in arrays:
      raise Mistake(f"{str(path)!r} has no array data.{what}={name!r}{hint(name, arrays)}; it has {sorted(arrays)}")
    return np.asarray(arrays[name])

  inputs, offsets, lengths = take("inputs"), take("offsets"), take("lengths")
  assert inputs is not None, "the task has checked that inputs have a name"
  one = {what: take(what) for what in ("targets", "groups", "split")}
  if inputs.dtype.kind not in "biuf":
    raise Mistake(f"{str(path)!r}: inputs are {inputs.dtype}, no real numbers")
  if offsets is not None:
    values, starts = inputs.reshape(len(inputs), -1), offsets.astype(np.int64)
    if len(starts) < 1 or starts[0] != 0 or starts[-1] != len(values) or (np.diff(starts) < 0).any():
      raise Mistake(f"{str(path)!r}: data.offsets={names['offsets']!r} must rise from 0 to the {len(values)} steps")
    times = take("times")
  else:
    shape = inputs.shape
    if inputs.ndim < 2:
      raise Mistake(
        f"{str(path)!r}: inputs have the shape {shape}; they are n sequences of steps, padded to one size with their "
        "lengths in data.lengths, or one after the other with n + 1 places in data.offsets"
      )
    if layout == "pixels":
      inputs = inputs.reshape(len(inputs), -1, shape[3] if inputs.ndim == 4 else 1)
    inputs = inputs.reshape(len(inputs), inputs.shape[1], -1)
    sizes = np.full(len(inputs), inputs.shape[1]) if lengths is None else lengths.astype(np.int64)
    if sizes.shape != (len(inputs),) or (sizes < 0).any() or (sizes > inputs.shape[1]).any():
      raise Mistake(f"{str(path)!r}: data.lengths={names['lengths']!r} must be {len(inputs)} numbers up to {shape[1]}")
    valid = np.arange(inputs.shape[1]) < sizes[:, None]
    values, starts = inputs[valid], np.concatenate([[0], np.cumsum(sizes)])
    times = take("times")
    if times is not None:
      if times.shape != valid.shape:
        raise Mistake(f"{str(path)!r}: times have the shape {times.shape}, inputs {shape}: one time a step")
      times = times[valid]
  for what, array in one.items():
    if array is not None and (array.ndim < 1 or len(array) != len(starts) - 1):
      count = len(array) if array.ndim else 1
      raise Mistake(f"{str(path)!r}: {count} {what} for {len(starts) - 1} sequences; there is one for each")
    if array is not None and what != "targets" and array.ndim > 1:
      raise Mistake(f"{str(path)!r}: {what} have the shape {array.shape}; there is one for each sequence")
  if times is not None and times.shape != (len(values),):
    raise Mistake(f"{str(path)!r}: {times.shape} times for {len(values)} steps; there is one for each")
  unused = tuple(sorted(set(arrays) - set(names.values())))
  return Sequences(values, starts, one["targets"], one["groups"], one["split"], times, unused=unused)


def from_columns(
  path: pathlib.Path, columns: Mapping[str, np.ndarray], names: Mapping[str, str], *, forecast: bool = False
) -> Sequences:
  """Makes sequences of a table; inputs are the columns that no other name takes, or those listed, by blanks."""
  for what, name in names.items():
    several = what == "inputs" or forecast and what == "targets"
    for part in column_names(name, columns) if several else [name]:
      if part and part not in columns:
        raise Mistake(f"{str(path)!r} has no column data.{what}={part!r}{hint(part, columns)}; it has {list(columns)}")
  if names["times"] and not names["sequence"] and not forecast:
    raise Mistake(
      f"{str(path)!r}: data.times={names['times']!r} has one time a row, and a row is a whole sequence; name the "
      "sequences of the rows with data.sequence, or leave data.times empty"
    )
  taken = {name for what, name in names.items() if what not in (("inputs", "targets") if forecast else ("inputs",))}
  chosen = column_names(names["inputs"], columns) or [name for name in columns if name not in taken]
  if forecast:
    first_of_all = column_names(names["targets"], columns)
    if left_out := [name for name in first_of_all if name not in chosen]:
      raise Mistake(f"{str(path)!r}: data.targets={left_out[0]!r} is forecast, so add it to data.inputs={chosen}")
    chosen = [*first_of_all, *(name for name in chosen if name not in first_of_all)]
  rows = len(next(iter(columns.values()), ()))
  values = np.stack([numbers(path, name, columns[name]) for name in chosen], axis=1) if rows else np.zeros((0, 1))
  column = lambda what: columns[names[what]] if names.get(what) else None
  times = None if column("times") is None else numbers(path, names["times"], columns[names["times"]])
  which = column("sequence")
  if which is None and not forecast:
    one = {what: column(what) for what in ("targets", "groups", "split")}
    starts = np.arange(rows + 1) * len(chosen)
    return Sequences(values.reshape(-1, 1), starts, one["targets"], one["groups"], one["split"], inputs=tuple(chosen))
  runs = column("split") if which is None else which
  changes = np.flatnonzero(runs[1:] != runs[:-1]) + 1 if runs is not None else np.zeros(0, int)
  starts = np.concatenate([[0], changes, [rows]]) if rows else np.zeros(1, int)
  if which is not None and len(np.unique(which)) != len(starts) - 1:
    raise Mistake(
      f"{str(path)!r}: the steps of a data.sequence={names['sequence']!r} must stand together: sort the rows"
    )
  first: dict[str, np.ndarray | None] = {}
  for what in ("groups", "split") if forecast else ("targets", "groups", "split"):
    each = column(what)
    first[what] = None if each is None else each[starts[:-1]]
    if each is not None and (wrong := np.flatnonzero(each != np.repeat(each[starts[:-1]], np.diff(starts)))).size:
      raise Mistake(
        f"{str(path)!r}: {len(wrong)} of {rows} rows have another data.{what}={names[what]!r} than the first row of "
        f"their sequence, the first is row {wrong[0] + 1}; a sequence has one"
      )
  return Sequences(values, starts, first.get("targets"), first["groups"], first["split"], times, inputs=tuple(chosen))


def column_names(text: str, columns: Collection[str]) -> list[str]:
  """Returns the columns that a config names, by blanks, unless one column's own name has them."""
  return [text] if text in columns else text.split()


def numbers(path: pathlib.Path, name: str, column: np.ndarray) -> np.ndarray:
  """Reads a column as floats; a value that is no number is counted and named."""
  try:
    return column.astype(np.float64)
  except (TypeError, ValueError):
    wrong = [i for i, text in enumerate(column) if not _is_number(text)]
    first = f"first {str(column[wrong[0]])!r} in row {wrong[0] + 1}"
    fix = "leave the column out with data.inputs, or mend it"
    raise Mistake(
      f"{str(path)!r}: column {name!r} has {len(wrong)} values that are no numbers, {first}; {fix}"
    ) from None


def _is_number(text: Any) -> bool:
  try:
    float(text)
  except (TypeError, ValueError):
    return False
  return True


def _csv(path: pathlib.Path) -> dict[str, np.ndarray]:
  with path.open(newline="", encoding="utf-8-sig") as file:
    rows = list(csv.reader(file))
  if not rows:
    raise Mistake(f"{str(path)!r} is empty; its first line names the columns")
  twice = sorted(name for name, count in Counter(rows[0]).items() if count > 1)
  if twice:
    raise Mistake(f"{str(path)!r} has several columns named {twice[0]!r}; the first line names each differently")
  ragged = [i for i, row in enumerate(rows) if len(row) != len(rows[0])]
  if ragged:
    raise Mistake(f"{str(path)!r}: {len(ragged)} lines have not {len(rows[0])} values, first line {ragged[0] + 1}")
  return {name: np.array([row[i] for row in rows[1:]]) for i, name in enumerate(rows[0])}


def _parquet(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    import pyarrow.parquet
  except ImportError:
    raise Mistake(
      f"{str(path)!r} needs pyarrow, which is not installed; install it, or write the table as .csv"
    ) from None
  table = pyarrow.parquet.read_table(path)
  return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


def _npz(path: pathlib.Path) -> dict[str, np.ndarray]:
  with np.load(path, allow_pickle=False) as file:
    return {name: file[name] for name in file.files}


def _h5(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    import h5py
  except ImportError:
    raise Mistake(
      f"{str(path)!r} needs h5py, which is not installed; install it, or write the arrays as .npz"
    ) from None
  arrays: dict[str, np.ndarray] = {}
  with h5py.File(path) as file:
    file.visititems(lambda name, each: arrays.update({name: each[()]}) if isinstance(each, h5py.Dataset) else None)
  return arrays


def read_idx(path: pathlib.Path) -> np.ndarray:
  """Reads the array of an idx file, gzipped or not: 0, 0, type, rank, then big-endian sizes."""
  data = path.read_bytes()
  data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
  if data[:2] != b"\0\0" or len(data) < 4 or data[2] not in IDX:
    raise Mistake(f"{str(path)!r} is no idx file: it begins with {data[:4]!r}")
  shape = struct.unpack(f">{data[3]}I", data[4 : 4 + 4 * data[3]])
  return np.frombuffer(data, IDX[data[2]], offset=4 + 4 * data[3]).reshape(shape)


def from_sounds(folder: pathlib.Path, pattern: str) -> Sequences:
  """Reads the samples of .wav files, -1 … 1, in the order of their paths."""
  paths = sorted(path for path in folder.rglob("*.wav") if not path.is_dir())
  if strange := [path for path in paths if not path.is_file()]:
    raise Mistake(f"{str(strange[0])!r} is no file; take it away")
  if not paths:
    raise Mistake(f"folder {str(folder)!r} has no .wav file")
  matches = [re.fullmatch(pattern, path.stem) if pattern else None for path in paths]
  wrong = [path.name for path, match in zip(paths, matches) if pattern and match is None]
  if wrong:
    raise Mistake(
      f"{len(wrong)} of {len(paths)} names in {str(folder)!r} do not match data.pattern, first {wrong[0]!r}"
    )
  sounds = list(read_sounds(paths))
  widths = sorted({each.shape[1] for each in sounds})
  if len(widths) > 1:
    raise Mistake(f"{str(folder)!r} has sounds of {widths} channels; they must be alike")
  groups = lambda group: (
    np.array([match[group] for match in matches if match]) if group in re.compile(pattern).groupindex else None
  )
  labels = groups("label") if pattern else np.array([path.parent.name for path in paths])
  starts = np.concatenate([[0], np.cumsum([len(each) for each in sounds])])
  return Sequences(np.concatenate(sounds), starts, labels, groups("group"), groups("split"))


class Sound(NamedTuple):
  """The samples of a .wav file, float32 "t channels" in -1 … 1, and how many there are a second."""

  samples: np.ndarray
  rate: int


def sound(source: pathlib.Path | BinaryIO) -> Sound:
  """Reads a .wav file."""
  with wave.open(str(source) if isinstance(source, pathlib.Path) else source) as file:
    size, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
    if size not in PCM:
      raise Mistake(f"{str(source)!r} has {8 * size} bits a sample; 8, 16 and 32 are read")
    data = file.readframes(file.getnframes())
  dtype, silence = PCM[size]
  samples = (np.frombuffer(data, dtype).astype(np.float32) - silence) / np.float32(2.0 ** (8 * size - 1))
  return Sound(samples.reshape(-1, channels), rate)


def read_sounds(paths: Iterable[pathlib.Path]) -> Iterator[np.ndarray]:
  """Yields the samples of .wav files, which may have any rate if they all have it.

  Raises:
    Mistake: a file cannot be read, or two have different rates.
  """
  first, rate = None, 0
  for path in paths:
    with naming(path):
      one = sound(path)
    if first is None:
      first, rate = path, one.rate
    if one.rate != rate:
      raise Mistake(
        f"{str(path)!r} has {one.rate:,} samples a second, and {str(first)!r} has {rate:,}; resample the files to one "
        "rate, or put each rate into a folder of its own"
      )
    yield one.samples
