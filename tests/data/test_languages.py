"""Formal languages against plain programs for one string at a time, and the rows that are made of them."""

import math
from collections import Counter

import numpy as np
import pytest

from data import draws
from data.languages import LANGUAGES, UNKNOWN, ZERO
from data.task import build_task

SIGNS = dict(zip(range(6), "+-*=()"))


def number(bits):
  return int("".join(map(str, bits)), 2)


def value(symbols):
  """An expression with brackets by Python itself; x is the unknown's value."""
  text = "".join(SIGNS.get(s, "x" if s == UNKNOWN else str(s - ZERO)) for s in symbols)
  return text, lambda x=0: ZERO + eval(text, {"x": x}) % 5


def stack(x):
  held = [s for s in x if s < 2]
  for s in [s for s in x if s >= 2]:
    if s == 2:
      held = held[:-1]
    else:
      held.append(s - 3)
  return [*held[::-1], 2]


def sides(x):
  middle = x.index(2)
  return number(x[:middle][::-1]), number(x[middle + 1 :][::-1])


def little(n):
  return [int(bit) for bit in reversed(f"{n:b}")] + [2]


def simple(x):
  text = "".join("+-*"[s - 5] if i % 2 else str(s) for i, s in enumerate(x))
  return eval(text) % 5


def equation(x):
  text, _ = value(x[:-2])
  assert x[-2] == 3
  (solution,) = [d for d in range(5) if ZERO + eval(text, {"x": d}) % 5 == x[-1]]
  return [ZERO + solution]


def missing(x):
  half, place = len(x) // 2, x.index(2)
  other = (place + half) % len(x)
  assert all(a == b for i, (a, b) in enumerate(zip(x, x[half:])) if i not in (place, other))
  return [x[other]]


PLAIN = {
  "even_pairs": lambda x: [int(sum(a != b for a, b in zip(x, x[1:])) % 2 == 0)],
  "parity": lambda x: [sum(x) % 2],
  "cycle_navigation": lambda x: [(x.count(1) - x.count(2)) % 5],
  "modular_arithmetic": lambda x: [simple(x)],
  "stack_manipulation": stack,
  "reverse_string": lambda x: x[::-1],
  "modular_arithmetic_brackets": lambda x: [value(x)[1]()],
  "solve_equation": equation,
  "duplicate_string": lambda x: x + x,
  "missing_duplicate": missing,
  "odds_first": lambda x: x[::2] + x[1::2],
  "binary_addition": lambda x: little(sum(sides(x))),
  "binary_multiplication": lambda x: little(math.prod(sides(x))),
  "compute_sqrt": lambda x: [int(b) for b in f"{math.isqrt(number(x)):0{(len(x) + 1) // 2}b}"],
  "bucket_sort": sorted,
  "majority": lambda x: [min(set(x), key=lambda s: (-x.count(s), s))],
  "majority_count": lambda x: [max(Counter(x).values()) % 8],
  "set": lambda x: [*dict.fromkeys(x), 8],
}


def test_every_language_is_compared():
  assert set(PLAIN) == set(LANGUAGES)


@pytest.mark.parametrize("name", PLAIN)
def test_answers_are_those_of_a_plain_program(name):
  language = LANGUAGES[name]
  for n in language.sizes(1, 19):
    u = draws.bits(0, "test", n, 20, 2 * n + 2)
    questions, answers = language.make(u, n)
    assert (questions.shape, answers.shape) == ((20, n), (20, language.answer(n)))
    assert 0 <= questions.min() <= questions.max() < language.symbols
    for question, answer in zip(questions.tolist(), answers.tolist()):
      end = answer.index(-1) if -1 in answer else len(answer)
      assert set(answer[end:]) <= {-1}
      assert answer[:end] == PLAIN[name](question), question


@pytest.mark.parametrize("name", PLAIN)
def test_no_answer_of_one_symbol_is_much_likelier_than_the_others(name):
  language = LANGUAGES[name]
  if language.answer(16) > 1 or name == "majority_count":
    return
  n = language.sizes(15, 16)[0]
  _, answers = language.make(draws.bits(1, "test", 0, 2000, 2 * n + 2), n)
  shares = np.bincount(answers[:, 0])[-8:] / 2000
  shares = shares[shares > 0]
  assert len(shares) >= 2
  # products with 0 make the value 0 likelier, and the smallest symbol wins where several are as frequent
  assert shares.max() < (0.62 if len(shares) == 2 else 0.45)


def test_a_row_is_a_question_blanks_and_padding():
  task = build_task("formal_language", language="reverse_string", longest=9)
  assert (task.length, task.vocab) == (18, 4)
  batch = task.training_rows(0, 500)
  sizes = Counter()
  for inputs, targets, weights, length in zip(*(batch[key] for key in ("inputs", "targets", "weights", "lengths"))):
    n = length // 2
    sizes[n] += 1
    assert (inputs[n:length] == 1).all()
    assert not inputs[length:].any()
    assert targets[n:length].tolist() == inputs[:n][::-1].tolist()
    assert weights.tolist() == [0] * n + [1] * n + [0] * (18 - length)
  assert set(sizes) == set(range(1, 10))


def test_what_follows_the_end_of_an_answer_is_not_scored():
  batch = build_task("formal_language", language="stack_manipulation", longest=12).training_rows(0, 200)
  for targets, weights in zip(batch["targets"], batch["weights"]):
    assert targets[weights > 0][-1] == 4
    assert (targets[weights > 0][:-1] < 4).all()
    assert not targets[weights == 0].any()


def test_larger_questions_are_asked_than_were_trained_on():
  task = build_task("formal_language", language="duplicate_string", longest=10, eval_sizes=((1, 10), (11, 30)))
  assert list(task.eval_sets()) == ["size_1_10", "size_11_30"]
  lengths = task.evaluation_rows((11, 30), 0, 300)["lengths"]
  assert (lengths.min(), lengths.max()) == (33, 90)
