"""Patterns of letters: repeated to the depth, checked, cut into groups."""

import pytest

from hybrids import pattern

pytestmark = pytest.mark.smoke


@pytest.mark.parametrize("given, depth, letters", [("m", 3, "mmm"), ("mma", 5, "mmamm"), ("m-a-", 2, "m-")])
def test_a_pattern_is_repeated_to_the_depth(given, depth, letters):
  assert pattern.tile(given, depth) == letters


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
