"""Statistics of generated tasks: they agree with the definitions, and what does not is seen."""

import re

import numpy as np
import pytest

from scripts.generators import classify, main, table

# their images and trees take long; tests/data/ measures both
SLOW = ("ListOps", "Pathfinder")


def wrong(line):
  """Whether a line says that the sample is not of the law."""
  if line.defined == "all":
    right, rows = re.fullmatch(r"([\d,]+) of ([\d,]+)", line.drawn).groups()
    return right != rows
  p = re.search(r"p = ([\d.e-]+)", line.drawn)
  return "outside" in line.drawn or (p is not None and float(p[1]) < 1e-4)


@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_samples_are_of_the_laws(slow):
  for name, make in main.tables(200, 1).items():
    if (name in SLOW) == slow:
      for made in make():
        assert not list(filter(wrong, made.lines)), made.title
        assert table.markdown(made).count("\n|") == len(made.lines) + 2


def test_what_is_not_of_the_law_is_seen():
  draws = np.random.default_rng(0).integers(10, size=2000)
  assert not wrong(table.uniform("", draws, 0, 9))
  assert wrong(table.uniform("", draws, 0, 8))
  assert wrong(table.uniform("", draws, 1, 9))
  assert wrong(table.uniform("", np.minimum(draws, 8), 0, 9))
  assert wrong(table.law("", draws, np.arange(1, 11) / 55, ""))
  assert wrong(table.agreement("", [True, False]))
  assert table.mean("", np.array([1.0, 3.0]), "2").drawn == "2.000 ± 1.000"


def test_paths_that_cross_are_seen():
  across, beside = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]), np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]])
  assert classify.meet(across, across[::-1] * [1, -1] + [0, 1])
  assert not classify.meet(across, beside)
  # the first paddle of a curve points to the second, whose angle points back
  curve = [((0, 0), 0.0), ((0, 9), np.pi)]
  np.testing.assert_allclose(classify.path(curve, 2), [(0, 0), (0, 2), (0, 7), (0, 9)], atol=1e-9)


def test_only_tasks_that_exist_are_measured(capsys):
  assert main.main(["--only", "Needel"]) == 2
  assert "--only 'Needel' (did you mean 'Needle'?); choose from" in capsys.readouterr().err
