"""Patterns of letters: repeated to the depth, checked, cut into groups."""

import pytest

from hybrids import pattern

pytestmark = pytest.mark.smoke


@pytest.mark.parametrize("given, depth, letters", [("m", 3, "mmm"), ("mma", 5, "mmamm"), ("m-a-", 2, "m-")])
def test_a_pattern_is_repeated_to_the_depth(given, depth, letters):
  assert pattern.tile(given, depth) == letters


def test_people_are_told_how_many_layers_of_each_mixer_there_are():
  names = {"m": "mamba", "a": "softmax", "w": "softmax", "-": "mlp"}
  assert pattern.describe("m-", 4, names) == "depth 4: 2 mamba, 2 mlp"
  assert pattern.describe("m", 3, names) == "depth 3: 3 mamba"
  assert pattern.describe("wm-a-", 5, names) == "depth 5: 2 softmax, 1 mamba, 2 mlp"
  cut = "; the last repetition of the pattern m-a- is cut to "
  assert pattern.describe("m-a-", 6, names) == f"depth 6: 2 mamba, 3 mlp, 1 softmax{cut}m-"
  assert pattern.describe("m-a-", 1, names) == f"depth 1: 1 mamba{cut}m"


@pytest.mark.parametrize("letters, size", [("m", 1), ("mm", 1), ("mmammam", 3), ("mam", 2), ("mab", 3), ("maam", 3)])
def test_the_period_is_the_smallest(letters, size):
  assert pattern.period(letters) == size


def test_layers_that_repeat_are_looped_and_the_rest_is_not():
  assert pattern.layout("m-m-m").scanned == range(4)
  assert pattern.layout("mmm").scanned == range(3)
  assert not pattern.layout("m-a-m-a").scanned
  assert pattern.layout("m-m-m-m", offers=True).scanned == range(2, 6)
  assert not pattern.layout("m-m-m", offers=True).scanned


def test_errors_name_the_letters():
  with pytest.raises(ValueError, match=r"pattern 'rz' uses \['z'\], but mixers defines \['r'\]"):
    pattern.check("rz", {"r": {}})
  with pytest.raises(ValueError, match=r"mixers defines \['mamba'\]: each name is one letter"):
    pattern.check("m", {"mamba": {}})
  with pytest.raises(ValueError, match="pattern '' is empty"):
    pattern.tile("", 2)
  with pytest.raises(ValueError, match="depth=0"):
    pattern.tile("m", 0)
