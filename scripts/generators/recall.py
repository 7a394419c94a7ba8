"""Copying, adding, recall and MAD's six problems."""

import itertools
from typing import Any

import numpy as np

from data.task import build_task
from scripts.generators.table import Line, Table, agreement, law, mean, parts, uniform


def copying(name: str, rows: int, seed: int) -> Table:
  """Measures copying, or selective copying."""
  task: Any = build_task(name, seed=seed)
  batch = task.training_rows(0, rows)
  space, m = task.length - task.tokens, task.tokens
  inputs, targets = batch["inputs"], batch["targets"]
  places = np.stack([np.flatnonzero(row[:space]) for row in inputs])
  data = np.take_along_axis(inputs, places, axis=1)
  if name == "selective_copying":
    # one place of a subset, chosen without looking, is uniform
    pick = np.random.default_rng(0).integers(m, size=rows)
    where = uniform("place of a random one of a row's data tokens", places[np.arange(rows), pick], 0, space - 1)
  else:
    where = agreement("data tokens stand at the front", (places == np.arange(m)).all(axis=1))
  lines = [
    uniform("data tokens", data, 1, task.vocab - 2),
    where,
    agreement("answers are the data in order, at the markers", (targets[:, space:] == data).all(axis=1)),
    agreement("nothing else is scored", batch["weights"].sum(axis=1) == m),
  ]
  sizes = f"{task.length} tokens, {m} of them data, vocabulary {task.vocab}"
  return Table(name.replace("_", " ").capitalize(), f"{rows:,} training rows of seed {seed}; {sizes}.", lines)


def adding(rows: int, seed: int) -> Table:
  """Measures the adding problem."""
  task: Any = build_task("adding", seed=seed)
  batch = task.training_rows(0, rows)
  numbers, marks = batch["inputs"][..., 0], batch["inputs"][..., 1]
  places = np.stack([np.flatnonzero(row) for row in marks])
  half = task.length // 2
  right = np.abs((numbers * marks).sum(axis=1) - batch["targets"][:, 0]) < 1e-5
  lines = [
    mean("numbers", numbers, "1/2, uniform on (0, 1)", 4),
    uniform("mark in the first half", places[:, 0], 0, half - 1),
    uniform("mark in the second half", places[:, 1], half, task.length - 1),
    agreement("the target is the sum of both marked numbers", right),
    mean("squared error of always saying 1", (batch["targets"] - 1) ** 2, "1/6 = 0.1667", 4),
  ]
  return Table("Adding", f"{rows:,} training rows of seed {seed}; {task.length} tokens.", lines)


def associative_recall(rows: int, seed: int) -> Table:
  """Measures associative recall with one question a row."""
  task: Any = build_task("associative_recall", seed=seed)
  batch = task.training_rows(0, rows)
  keys, values = batch["inputs"][:, 0:-2:2], batch["inputs"][:, 1:-2:2]
  asked, answers = batch["inputs"][:, -1], batch["targets"][:, -1]
  held = [dict(zip(*pair)) for pair in zip(keys.tolist(), values.tolist())]
  once = [all(book[k] == v for k, v in zip(*pair)) for book, *pair in zip(held, keys.tolist(), values.tolist())]
  many = (task.vocab - 1) // 2
  rank = [sorted(book).index(key) / len(book) for book, key in zip(held, asked.tolist())]
  size = np.array([len(book) for book in held])
  pairs = keys.shape[1]
  lines = [
    uniform("keys, with replacement", keys, 1, many),
    uniform("values asked for", answers, many + 1, task.vocab - 1),
    agreement("a key has one value in a row", once),
    agreement("the answer is the value of the key", (book[k] == v for book, k, v in zip(held, asked, answers))),
    mean("different keys of a row", size, f"{many * (1 - (1 - 1 / many) ** pairs):.3f}"),
    mean("rank of the key asked for, among them", rank, f"{np.mean((size - 1) / 2 / size):.3f}, being uniform"),
  ]
  sizes = f"{pairs} pairs of {many} keys, vocabulary {task.vocab}"
  return Table("Associative recall", f"{rows:,} training rows of seed {seed}; {sizes}.", lines)


def mqar(length: int, pairs: int, rows: int, seed: int) -> Table:
  """Measures MQAR; the gaps are those of Zoology's power law, of which the first drawn has the law itself."""
  task: Any = build_task("mqar", seed=seed, length=length, pairs=pairs, random_non_queries=False)
  batch = task.training_rows(0, rows)
  keys, values = batch["inputs"][:, 0 : 2 * pairs : 2], batch["inputs"][:, 1 : 2 * pairs : 2]
  queries, answers = batch["inputs"][:, 2 * pairs :], batch["targets"][:, 2 * pairs :]
  places = (queries[:, None] == keys[:, :, None]).argmax(axis=2)
  space = (length - 2 * pairs) // 2
  shares = np.arange(1, space + 1) ** (task.power - 1.0)
  shares /= shares.sum()
  right = np.take_along_axis(answers, places, axis=1) == values
  half = task.vocab // 2
  power = f"{task.power - 1:g}"
  lines = [
    law("gap of the first key", places[:, 0] // 2, shares, f"p_i ∝ i^{power}, i = 1 … {space}"),
    mean("its mean gap", places[:, 0] // 2 + 1, f"{(shares * np.arange(1, space + 1)).sum():.3f}"),
    agreement("queries stand at even places", (places % 2 == 0).all(axis=1)),
    agreement("each key is asked once, for its value", right.all(axis=1) & ((queries > 0).sum(axis=1) == pairs)),
    agreement("keys and values are distinct", (len({*k, *v}) == 2 * pairs for k, v in zip(keys, values))),
    uniform("first keys", keys[:, 0], 1, half - 1),
    uniform("first values", values[:, 0], half, task.vocab - 1),
  ]
  return Table(f"MQAR, {length}x{pairs}", f"{rows:,} training rows of seed {seed}; vocabulary {task.vocab}.", lines)


def induction_heads(rows: int, seed: int) -> Table:
  """Measures induction heads."""
  task: Any = build_task("induction_heads", seed=seed)
  inputs, targets = (task.training_rows(0, rows)[key] for key in ("inputs", "targets"))
  trigger, last = task.vocab - 1, task.length - 2
  places = (inputs == trigger).argmax(axis=1)
  answers = inputs[np.arange(rows), places + 1]
  lines = [
    uniform("place of the first trigger", places, 0, task.length - 4),
    uniform("what follows it", answers, 0, trigger - 1),
    agreement("two triggers, the second one before the last token", (inputs[:, last] == trigger) & (places < last)),
    agreement("what followed the first is asked at the second", targets[:, last] == answers),
  ]
  return Table("Induction heads", f"{rows:,} training rows of seed {seed}; {task.length} tokens.", lines)


def mad(rows: int, seed: int) -> list[Table]:
  """Measures MAD's six problems."""
  return [problem(name, rows, seed) for name in MAD]


def problem(name: str, rows: int, seed: int) -> Table:
  """Measures one of MAD's problems, by its validation rows, which are scored as published."""
  task: Any = build_task("mad", problem=name)
  batch = task.sample(seed, "statistics", 0, rows, evaluate=True)
  inputs, scored = batch["inputs"], batch["weights"] > 0
  asked = Line("answers a row", "–", f"{scored.sum(axis=1).mean():.1f}")
  lines = [*MAD[name](task, inputs, batch["targets"], scored), asked]
  sizes = f"{task.length} tokens, vocabulary {task.vocab}"
  return Table(f"MAD: {name.replace('_', ' ')}", f"{rows:,} rows of seed {seed}; {sizes}.", lines)


def recalled(task, inputs, targets, scored) -> list[Line]:
  """Measures recall, whose noise is the tokens above the keys and values."""
  noisy = task.problem.startswith("noisy")
  ordinary = task.vocab - (16 if noisy else 0)
  keys, right = inputs[:, ::2], []
  for row, target, mark in zip(inputs.tolist(), targets.tolist(), scored):
    held: dict[int, int] = {}
    asked: dict[int, int] = {}
    for place in range(0, task.length, 2):
      key, value = row[place : place + 2]
      if key < ordinary:
        asked |= {place: value} if key in held else {}
        right.append(held.setdefault(key, value) == value)
    right.append(asked == {place: target[place] for place in np.flatnonzero(mark).tolist()})
  # the last pair is always one, and one other place is
  pairs = task.length // 2
  share = f"{task.noise * (pairs - 2) / pairs:.4f}" if noisy else "0"
  return [
    agreement("values of known keys are asked, and a key has one", right),
    mean("share of the pairs that is noise", keys >= ordinary, share, 4),
    uniform("keys, the first of each row", keys[:, 0][keys[:, 0] < ordinary], 0, ordinary // 2 - 1),
    agreement("the last key has been there", scored[:, -2]),
  ]


def fuzzy(task, inputs, targets, scored) -> list[Line]:
  """Measures fuzzy recall, with keys of three tokens in evaluation."""
  keys, sizes, whole = (task.vocab - 1) // 2, [], []
  for row in inputs.tolist():
    runs = [
      (kind, len(list(run))) for kind, run in itertools.groupby(row, lambda t: 2 if t == task.vocab - 1 else t >= keys)
    ]
    whole += [size == 3 for kind, size in runs if kind == 0]
    sizes += [size for kind, size in runs if kind == 1]
  repeated = [np.array_equal(row[1:][mark[:-1]], target[mark]) for row, target, mark in zip(inputs, targets, scored)]
  return [
    agreement("keys have three tokens", whole),
    parts("values of 1, 2, 3 tokens", np.array(sizes) - 1, 3, "a third each, before repetition"),
    agreement("what is asked stands at the next place", repeated),
  ]


def memorized(task, inputs, targets, scored) -> list[Line]:
  """Measures memorization, whose values are the same in all rows."""
  keys = (task.vocab - 1) // 2
  held: dict[int, set[int]] = {}
  for key, value in zip(inputs[:, ::2].ravel().tolist(), targets[:, 1::2].ravel().tolist()):
    held.setdefault(key, set()).add(value)
  return [
    uniform("keys", inputs[:, ::2], 0, keys - 1),
    agreement("a key has one value in all rows", (len(values) == 1 for values in held.values())),
    Line("different values", f"{keys}", f"{len(set.union(*held.values()))}"),
    agreement(
      "the value is asked at the token after the key", (scored[:, 1::2].all(axis=1) & ~scored[:, ::2].any(axis=1))
    ),
  ]


def compressed(task, inputs, targets, scored) -> list[Line]:
  """Measures compression."""
  return [
    uniform("tokens", inputs[:, :-1], 0, task.vocab - 2),
    agreement("the row itself is asked", (inputs == targets).all(axis=1) & scored.all(axis=1)),
  ]


def copied(task, inputs, targets, scored) -> list[Line]:
  """Measures selective copying: each blank stands before any of the tokens."""
  body = task.length - task.tokens - 1
  places = np.stack([np.flatnonzero(row[:body] < task.vocab - 2) for row in inputs])
  gaps = np.diff(places, axis=1, prepend=-1) - 1
  data = np.take_along_axis(inputs, places, axis=1)
  blanks = body - task.tokens
  return [
    uniform("tokens", data, 0, task.vocab - 3),
    mean("blanks before the first token", gaps[:, 0], f"{blanks / task.tokens:.2f}", 2),
    mean(
      "their variance",
      (gaps[:, 0] - blanks / task.tokens) ** 2,
      f"{blanks * (task.tokens - 1) / task.tokens**2:.2f}",
      2,
    ),
    agreement("the tokens are asked in order", (targets[:, -task.tokens :] == data).all(axis=1)),
  ]


MAD = {
  "in_context_recall": recalled,
  "noisy_in_context_recall": recalled,
  "fuzzy_in_context_recall": fuzzy,
  "memorization": memorized,
  "compression": compressed,
  "selective_copying": copied,
}
