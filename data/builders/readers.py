"""Published files as sequences: sounds, DNA, series, images and events, a part at a time."""

import functools
import pathlib
from collections.abc import Callable, Iterator

import numpy as np

from data import known_sets
from data.sequences import Sequences, naming, read_idx, sound
from mistake import Mistake

Parts = Iterator[tuple[str, Callable[[], Sequences]]]
# samples of a word of Speech Commands, of which shorter ones are filled up with silence
SECOND = 16000
# pixels of a side of N-MNIST and of DVS128
SIDE, WIDE = 34, 128
HEADER = 28


def idx(folder: pathlib.Path, names: tuple[str, ...]) -> Parts:
  """Yields the parts of MNIST's four files, each image pixel by pixel."""
  for part, (images, labels) in (("train", names[:2]), ("test", names[2:])):
    yield part, functools.partial(_idx, folder / images, folder / labels, part)


def _idx(images: pathlib.Path, labels: pathlib.Path, part: str) -> Sequences:
  pixels, answers = read_idx(images), read_idx(labels)
  size = pixels[0].size
  return Sequences(pixels.reshape(-1, 1), np.arange(len(pixels) + 1) * size, answers, split=_all(part, len(pixels)))


def imdb(folder: pathlib.Path) -> Parts:
  """Yields the reviews of the authors' own archive as one part."""
  yield "all", lambda: known_sets.imdb([folder / "aclImdb_v1.tar.gz"])


def speech(folder: pathlib.Path, words: tuple[str, ...] | None, rate: int) -> Parts:
  """Yields a part for each word; 8 kHz is every second sample, whose aliasing belongs to the published test."""
  lists = {"validation": "validation_list.txt", "test": "testing_list.txt"}
  listed = {line: part for part, name in lists.items() for line in (folder / name).read_text().split()}
  names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("_"))
  chosen = sorted(words or names)
  for label, word in enumerate(chosen):
    if word not in names:
      raise Mistake(f"{str(folder)!r} has no folder {word!r}")
    yield word, functools.partial(_word, folder / word, listed, label, SECOND // rate)


def _word(folder: pathlib.Path, listed: dict[str, str], label: int, step: int) -> Sequences:
  paths = sorted(folder.glob("*.wav"))
  samples = np.zeros((len(paths), SECOND), np.int16)
  left_out = {f"cut to {SECOND:,} samples": 0, "read by the first of several channels": 0}
  for row, path in zip(samples, paths):
    with naming(path):
      values, rate = sound(path)
    if rate != SECOND:
      raise Mistake(f"{str(path)!r} has {rate:,} samples a second; Speech Commands has {SECOND:,}, so get it anew")
    for what, is_so in zip(left_out, (len(values) > SECOND, values.shape[1] > 1)):
      left_out[what] += is_so
    values = np.rint(values[:SECOND, 0] * 2**15).astype(np.int16)
    row[: len(values)] = values
  samples = samples[:, ::step]
  split = np.array([listed.get(f"{folder.name}/{path.name}", "train") for path in paths])
  starts = np.arange(len(paths) + 1) * samples.shape[1]
  labels = np.full(len(paths), label, np.int32)
  return Sequences(samples.reshape(-1, 1), starts, labels, split=split, left_out=left_out)


def genomic(folder: pathlib.Path) -> Parts:
  """Yields a part for each class of each split; bases are tokens 1 to 4, other letters 5."""
  classes = sorted(path.name for path in (folder / "train").iterdir() if path.is_dir())
  for part in ("train", "test"):
    for label, name in enumerate(classes):
      yield f"{part}_{name}", functools.partial(_bases, folder / part / name, part, label)


def _bases(folder: pathlib.Path, part: str, label: int) -> Sequences:
  table = np.full(256, known_sets.DNA_TOKENS - 1, np.uint8)
  table[list(known_sets.BASES)] = table[list(known_sets.BASES.lower())] = np.arange(1, 5)
  texts = [np.frombuffer(path.read_bytes().strip(), np.uint8) for path in sorted(folder.glob("*.txt"))]
  values, starts = known_sets.flat(texts)
  return Sequences(table[values][:, None], starts, np.full(len(texts), label, np.int32), split=_all(part, len(texts)))


def uea(folder: pathlib.Path, name: str) -> Parts:
  """Yields the two parts of series in .ts files, with several numbers a step."""
  for part in ("train", "test"):
    yield part, functools.partial(ts_file, folder / f"{name}_{part.upper()}.ts", part)


def ts_file(path: pathlib.Path, part: str) -> Sequences:
  """Reads the series of a .ts file: dimensions between colons, numbers between commas, the label last.

  Raises:
    Mistake: there are no data, a number is missing, or dimensions of a series differ in length.
  """
  series, labels = [], []
  lines = iter(enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1))
  for _, line in lines:
    if line.strip().lower() == "@data":
      break
  for number, line in lines:
    if not line.strip() or line.startswith("#"):
      continue
    *dimensions, label = line.strip().split(":")
    try:
      values = np.array([[float(value) for value in each.split(",")] for each in dimensions], np.float32)
    except ValueError as error:
      raise Mistake(
        f"{str(path)!r}, line {number}: {error}; missing values and uneven dimensions are not read"
      ) from None
    series.append(values.T)
    labels.append(label)
  if not series:
    raise Mistake(f"{str(path)!r} has no series after @data")
  values, starts = known_sets.flat(series)
  return Sequences(values, starts, np.array(labels), split=_all(part, len(series)))


def spikes(folder: pathlib.Path, files: tuple[str, ...]) -> Parts:
  """Yields a part for each file: events of the cochlea's 700 channels, their times in seconds."""
  for name in files:
    part = name.rpartition("_")[2].removesuffix(".h5")
    yield part, functools.partial(_spikes, folder / name, "validation" if part == "valid" else part)


def _spikes(path: pathlib.Path, part: str) -> Sequences:
  try:
    import h5py
  except ImportError:
    raise Mistake(f"{str(path)!r} needs h5py: EXTRAS=h5 ./dev setup") from None
  with h5py.File(path) as file:
    times, units, labels = list(file["spikes/times"]), list(file["spikes/units"]), np.asarray(file["labels"])
  values, starts = known_sets.flat([np.asarray(each, np.uint16) for each in units])
  moments = np.concatenate([np.asarray(each, np.float64) for each in times])
  return Sequences(values[:, None], starts, labels.astype(np.int32), split=_all(part, len(units)), times=moments)


def nmnist(folder: pathlib.Path) -> Parts:
  """Yields a part for each digit: events of 34 by 34 pixels and two polarities, their times in microseconds."""
  for part in ("Train", "Test"):
    for digit in range(10):
      yield f"{part}_{digit}", functools.partial(_nmnist, folder / part / str(digit), part.lower(), digit)


def _nmnist(folder: pathlib.Path, part: str, digit: int) -> Sequences:
  events = [nmnist_events(path) for path in sorted(folder.glob("*.bin"))]
  values, starts = known_sets.flat([tokens for tokens, _ in events])
  times = np.concatenate([times for _, times in events])
  labels = np.full(len(events), digit, np.int32)
  return Sequences(values[:, None], starts, labels, split=_all(part, len(events)), times=times)


def nmnist_events(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """Returns tokens and times of events of five bytes each: column, row, one bit of polarity, 23 of time."""
  data = np.frombuffer(path.read_bytes(), np.uint8)
  if len(data) % 5:
    raise Mistake(f"{str(path)!r} has {len(data)} bytes; events have five each")
  x, y, high, middle, low = data.reshape(-1, 5).astype(np.int64).T
  if len(x) and max(x.max(), y.max()) >= SIDE:
    raise Mistake(f"{str(path)!r} has events outside of {SIDE} by {SIDE} pixels")
  return (((high >> 7) * SIDE + y) * SIDE + x).astype(np.uint16), ((high & 127) << 16 | middle << 8 | low).astype(float)


def dvs128(folder: pathlib.Path) -> Parts:
  """Yields a part for each recording, cut into gestures by its labels: events of 128 by 128 pixels, two polarities."""
  for part in ("train", "test"):
    names = (folder / f"trials_to_{part}.txt").read_text().split()
    for name in names:
      yield f"{part}_{pathlib.Path(name).stem}", functools.partial(_gestures, folder / name, part)


def _gestures(path: pathlib.Path, part: str) -> Sequences:
  tokens, times = aedat(path)
  labels = np.loadtxt(path.with_name(f"{path.stem}_labels.csv"), np.int64, delimiter=",", skiprows=1, ndmin=2)
  cuts = np.searchsorted(times, labels[:, 1:])
  values, starts = known_sets.flat([tokens[low:high] for low, high in cuts])
  # from 0, as a double holds what a clock of microseconds has counted since its start
  moments = np.concatenate([times[low:high] - times[low] for low, high in cuts if high > low] or [np.zeros(0)])
  split = _all(part, len(labels))
  return Sequences(
    values[:, None], starts, (labels[:, 0] - 1).astype(np.int32), split=split, times=moments.astype(float)
  )


def aedat(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """Returns tokens and times in microseconds of the valid polarity events in an AEDAT 3.1 file.

  Raises:
    Mistake: it is no such file, or ends within a packet.
  """
  data = path.read_bytes()
  offset = 0
  while data[offset : offset + 1] == b"#":
    offset = data.index(b"\n", offset) + 1
  if not data.startswith(b"#!AER-DAT3"):
    raise Mistake(f"{str(path)!r} is no AEDAT 3.1 file: it begins with {data[:12]!r}")
  tokens, times = [], []
  while offset < len(data):
    header = np.frombuffer(data[offset : offset + HEADER].ljust(HEADER, b"\0"), "<i4")
    kind, size, count = int(header[0]) & 0xFFFF, int(header[1]), int(header[5])
    end = offset + HEADER + size * count
    if end > len(data) or size < 8:
      raise Mistake(f"{str(path)!r} ends within a packet at byte {offset}")
    if kind == 1:
      words = np.frombuffer(data[offset + HEADER : end], "<u4").reshape(count, size // 4)
      word = words[words[:, 0] & 1 == 1, 0].astype(np.int64)
      x, y, polarity = word >> 17 & 0x7FFF, word >> 2 & 0x7FFF, word >> 1 & 1
      tokens.append(((polarity * WIDE + y) * WIDE + x).astype(np.uint16))
      times.append(words[words[:, 0] & 1 == 1, 1].astype(np.int64) + (int(header[3]) << 31))
    offset = end
  if not tokens:
    raise Mistake(f"{str(path)!r} has no events")
  return np.concatenate(tokens), np.concatenate(times)


def _all(part: str, count: int) -> np.ndarray:
  return np.array([part] * count)
