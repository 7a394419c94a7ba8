"""Languages, groups, phone books and needles."""

import itertools
import re
from collections import Counter
from typing import Any

import numpy as np

from data import draws, formal_language, languages, regbench, ruler
from data.task import build_task
from scripts.generators.table import Line, Table, agreement, law, mean, uniform


def automata(rows: int, seed: int) -> Table:
  """Measures RegBench: strings of automata, and automata themselves."""
  task: Any = build_task("regbench", seed=seed)
  batch = task.sample(seed, "statistics", 0, rows)
  strings = [split(row[:n].tolist()) for row, n in zip(batch["inputs"], batch["lengths"])]
  # the last token of a row is a target only
  tails = batch["targets"][np.arange(rows), batch["lengths"] - 1]
  lengths = np.array([len(string) for row in strings for string in row[:-1]])
  many = np.array([len(row) + (tail == regbench.SEPARATOR) for row, tail in zip(strings, tails)])
  u = draws.bits(seed, "automata", 0, rows, task._automaton_draws)
  edges, symbols, _ = task.automata(u)
  states = 2 + draws.below(u[:, 0], task.states - 2)
  first = edges[:, 0][states >= 4]
  distinct = [len(set(row[:n])) == n for row, n in zip(symbols[:, 0].tolist(), edges[:, 0].tolist())]
  low, high = task.strings
  lines = [
    uniform("strings a row", many, low, high - 1),
    uniform("symbols of a string, the last of each row left out", lengths, 0, regbench.LONGEST_STRING - 1),
    uniform("edges of a state, in automata of four states and more", first, 1, task.edges - 1),
    agreement("edges of a state have different symbols", distinct),
  ]
  return Table("RegBench", f"{rows:,} rows of seed {seed}; {task.length} tokens, vocabulary {task.vocab}.", lines)


def split(tokens: list[int]) -> list[list[int]]:
  """Splits a row at its separators."""
  strings: list[list[int]] = [[]]
  for token in tokens:
    if token == regbench.SEPARATOR:
      strings.append([])
    else:
      strings[-1].append(token)
  return strings


def words(group: str, rows: int, seed: int) -> Table:
  """Measures a group's word problem: products are worked out one permutation after the other."""
  task: Any = build_task("word_problem", group=group, seed=seed)
  u_rows = task.sample((task.length, task.length), seed, "statistics", "all", 0, rows)
  elements, products = u_rows["inputs"] - 1, u_rows["targets"] - 1
  order = task.vocab - 1
  named = members(group)
  right = []
  for row, product in zip(elements.tolist(), products.tolist()):
    so_far = named[row[0]]
    for element, after in zip(row[1:], product[1:]):
      so_far = combined(so_far, named[element])
      right.append(so_far == named[after])
  lines = [
    uniform("elements", elements, 0, order - 1),
    uniform("product of the whole row", products[:, -1], 0, order - 1),
    agreement("products are those of permutations, or sums", right),
  ]
  return Table(f"Word problem of {group}", f"{rows:,} rows of seed {seed}; {task.length} tokens.", lines)


def members(group: str) -> list:
  """Lists a group's elements: permutations in lexicographic order, or numbers and their modulus."""
  n = int(group[1:])
  if group[0] == "Z":
    return [(i, n) for i in range(n)]
  inversions = lambda p: sum(a > b for a, b in itertools.combinations(p, 2))
  return [p for p in itertools.permutations(range(n)) if group[0] == "S" or inversions(p) % 2 == 0]


def combined(a: tuple, b: tuple) -> tuple:
  """Returns a, then b."""
  if len(a) == 2 and a[1] > 2:
    return (a[0] + b[0]) % a[1], a[1]
  return tuple(b[i] for i in a)


# the chance that a guess of the first token of an answer is right, where that follows from the law of the questions
CHANCE = {"parity": 1 / 2, "reverse_string": 1 / 2, "duplicate_string": 1 / 2, "odds_first": 1 / 2}
CHANCE |= {"missing_duplicate": 1 / 2}


def formal(rows: int, seed: int) -> Table:
  """Measures the formal languages: sizes of questions, and what always saying one answer would score."""
  lines = []
  for name, rules in languages.LANGUAGES.items():
    task: Any = build_task("formal_language", language=name, seed=seed)
    batch = task.training_rows(0, rows)
    sizes = np.array([np.flatnonzero(row == formal_language.BLANK)[0] for row in batch["inputs"]])
    choices: Any = np.asarray(rules.sizes(task.shortest, task.longest))
    drawn = law(name, np.searchsorted(choices, sizes), np.full(len(choices), 1 / len(choices)), "").drawn
    first = batch["targets"][np.arange(rows), sizes]
    share = np.bincount(first).max() / rows
    defined = f"uniform on {len(choices)} sizes" + (f"; {CHANCE[name]:g}" if name in CHANCE else "")
    lines.append(Line(name, defined, f"{drawn}; {share:.3f}"))
  what = "sizes of questions; then the share of the commonest first token of an answer"
  return Table("Formal languages", f"{rows:,} training rows of seed {seed} of each language: {what}.", lines)


def phone(rows: int, seed: int) -> Table:
  """Measures phone books."""
  task: Any = build_task("phonebook", seed=seed)
  batch = task.training_rows(0, rows)
  right, distinct, place, digits, leading = [], [], [], [], []
  for inputs, targets, weights, n in zip(*(batch[key] for key in ("inputs", "targets", "weights", "lengths"))):
    text = bytes(inputs[1:n].tolist()).decode()
    book = [line.split(": ") for line in text.split("\n")[: task.entries]]
    name = text.split("\n")[-1].split(":")[0]
    answer = bytes(targets[weights > 0].tolist()).decode()
    right.append(dict(book)[name] == answer)
    distinct.append(len(dict(book)) == task.entries)
    place.append([each for each, _ in book].index(name))
    digits += [int(d) for d in answer[1:]]
    leading.append(int(answer[0]))
  lines = [
    agreement("the answer is the number of the name", right),
    agreement("names are distinct", distinct),
    uniform("line that is asked for", np.array(place), 0, task.entries - 1),
    uniform("first digits", np.array(leading), 6, 9),
    uniform("other digits", np.array(digits), 0, 9),
  ]
  return Table("Phone book", f"{rows:,} training rows of seed {seed}; {task.entries} entries.", lines)


def needles(rows: int, seed: int) -> Table:
  """Measures needles in a haystack."""
  task: Any = build_task("needle", seed=seed)
  batch = task.training_rows(0, rows)
  right, depth, digits = [], [], []
  for inputs, targets, weights in zip(batch["inputs"], batch["targets"], batch["weights"]):
    text = bytes(inputs[1:].tolist()).decode()
    answer = bytes(targets[weights > 0].tolist()).decode()
    found = re.findall(r"The code is (\d{5})\. Keep it: (\d{5})\. ", text)
    right.append(found == [(answer, answer)])
    depth.append(text.index("The code is") / (task.length - len(task.question) - len(task.needle)))
    digits += [int(d) for d in answer[1:]]
  fixed = [build_task("needle", length=4096).evaluation_rows((4096, d), 0, 1) for d in (0, 50, 100)]
  places = [bytes(batch["inputs"][0, 1:].tolist()).decode().index("The code is") for batch in fixed]
  lines = [
    agreement("the number stands once in the text, and is the answer", right),
    mean("depth of the needle", np.array(depth), "1/2, uniform but for the nearest end of a sentence"),
    uniform("digits but the first", np.array(digits), 0, 9),
    Line("byte of the needle at depths of 0, 50 and 100 % of 4,096", "0, middle, last end of a sentence", f"{places}"),
  ]
  return Table("Needle", f"{rows:,} training rows of seed {seed}; {task.length} bytes.", lines)


def rulers(rows: int, seed: int) -> Table:
  """Measures RULER's four problems."""
  lines = []
  for fields in ({}, {"keys": 4}, {"haystack": "needles", "length": 256}):
    task: Any = build_task("ruler", seed=seed, **fields)
    inputs = task.training_rows(0, rows)["inputs"]
    context = task.length - task.tail
    asked, answer = inputs[:, context + 1], inputs[:, context + 2]
    places = np.array([row[:context].tolist().index(key) for row, key in zip(inputs, asked)])
    right = inputs[np.arange(rows), places + 2] == answer
    name = ", ".join(["niah", *(f"{key}={value}" for key, value in fields.items() if key != "length")])
    lines += [
      agreement(f"{name}: the answer follows the key", right),
      uniform(f"{name}: place of the needle", (places - context % 3) // 3, 0, context // 3 - 1),
    ]
  lines += [chains(rows, seed), *frequencies(rows, seed)]
  return Table("RULER", f"{rows:,} training rows of seed {seed} of each problem.", lines)


def chains(rows: int, seed: int) -> Line:
  """Follows the variables of variable_tracking."""
  task: Any = build_task("ruler", seed=seed, problem="variable_tracking", keys=2)
  right = []
  for row in task.training_rows(0, rows)["inputs"].tolist():
    context = row[: task.length - task.tail]
    value_of: dict[int, int] = {}
    for place in (i for i, token in enumerate(context) if token == ruler.IS):
      value_of[context[place - 1]] = value_of.get(context[place + 1], context[place + 1])
    question = task.length - task.tail + 1
    right.append(row[question + 1 :] == [name for name, value in value_of.items() if value == row[question]])
  return agreement("variable_tracking: the answer is every variable of the value, in order", right)


def frequencies(rows: int, seed: int) -> list[Line]:
  """Counts the words of common_words and frequent_words."""
  common = build_task("ruler", seed=seed, problem="common_words")
  counts = [Counter(t for t in row[: -common.tail] if t >= ruler.WORD) for row in of(common, rows)]
  frequent = build_task("ruler", seed=seed, problem="frequent_words")
  ranked = [Counter(t for t in row[: -frequent.tail] if t >= ruler.WORD).most_common(3) for row in of(frequent, rows)]
  first = np.array([[many for _, many in row] for row in ranked])
  answers = [row[-ruler.FREQUENT :] == [word for word, _ in top] for row, top in zip(of(frequent, rows), ranked)]
  tens = [
    sorted(count.values())[-10:] == [ruler.OFTEN] * 10 and sorted(count.values())[0] == ruler.RARE for count in counts
  ]
  ratios = f"{(first[:, 0] / first[:, 1]).mean():.2f}, {(first[:, 0] / first[:, 2]).mean():.2f}"
  return [
    agreement("common_words: ten words stand 30 times, all others three times", tens),
    agreement("frequent_words: the answer is the three commonest, in order", answers),
    Line("frequent_words: the first beside the second and the third", "4 and 9 before rounding down", ratios),
  ]


def of(task, rows: int) -> list[list[int]]:
  """Makes training rows as lists."""
  return task.training_rows(0, rows)["inputs"].tolist()


def tracking(rows: int, seed: int) -> list[Table]:
  """Measures parity and modular arithmetic."""
  tables = []
  for name, classes in (("parity", 2), ("modular_arithmetic", 5)):
    task: Any = build_task(name, seed=seed)
    batch = task.sample((task.shortest, task.length), seed, "statistics", "last", 0, rows)
    answers = batch["targets"].max(axis=1)
    sizes = task.sizes(task.shortest, task.length)
    lines = [
      law(
        "sizes of questions",
        np.searchsorted(sizes, batch["lengths"]),
        np.full(len(sizes), 1 / len(sizes)),
        f"uniform on {len(sizes)} sizes",
      ),
      Line(
        "share of the commonest answer", f"1/{classes} for long questions", f"{np.bincount(answers).max() / rows:.3f}"
      ),
    ]
    tables.append(Table(name.replace("_", " ").capitalize(), f"{rows:,} rows of seed {seed}.", lines))
  return tables
