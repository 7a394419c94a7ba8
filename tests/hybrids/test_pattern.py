"""Patterns of letters: repeated to the depth, checked, turned into loops."""

import pytest

from hybrids import layout, pattern
from hybrids.pattern import Loop, program
from tests.refused import refused

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


@pytest.mark.parametrize(
  "letters, expected",
  [
    ("m", ("m",)),
    ("mm", (Loop(2, ("m",)),)),
    ("m-m-", (Loop(2, ("m", "-")),)),
    ("mab", ("m", "a", "b")),
    ("mmmammma", (Loop(2, (Loop(3, ("m",)), "a")),)),
    ("mmammammaa", (Loop(3, (Loop(2, ("m",)), "a")), "a")),
  ],
)
def test_a_program_writes_out_as_few_layers_as_it_can(letters, expected):
  assert program(letters) == expected


NVIDIA = "M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-"
NINTH = "".join("a" if layer % 9 == 8 else "m" for layer in range(32))


@pytest.mark.parametrize("letters, most", [(NINTH, 3), (NVIDIA, 18), ("m-" * 60, 2), ("abcde" * 3 + "abc", 8)])
def test_programs_of_published_patterns_are_short_and_run_every_layer_in_order(letters, most):
  items = program(letters)
  assert "".join(run(items)) == letters
  assert len(list(pattern.written(items))) <= most
  assert all(pattern.count(items, letter) == letters.count(letter) for letter in set(letters))


def run(items):
  """The layers that a program runs, in order."""
  for item in items:
    yield from list(run(item.body)) * item.times if isinstance(item, Loop) else [item]


def test_layers_that_run_alone_are_in_no_loop():
  made = layout.make("rrrr", offering=frozenset("r"), reading=frozenset("r"), shared=frozenset())
  assert made.program == (("r", 0), Loop(3, (("r", -1),)))
  assert [layer.alone for layer in made.layers] == [True, False, False, False]
  made = layout.make("emer", offering=frozenset("r"), reading=frozenset("e"), shared=frozenset())
  assert [layer.alone for layer in made.layers] == [True, False, True, False]


def test_errors_name_the_letters():
  refused(r"pattern 'rz' uses \['z'\], but letters defines \['r'\]", pattern.check, "rz", {"r": {}})
  refused(r"letters defines \['mamba'\]: each name is one letter", pattern.check, "m", {"mamba": {}})
  refused("pattern '' is empty", pattern.tile, "", 2)
  refused("depth=0", pattern.tile, "m", 0)
