"""Grids: the settings that `--grid` means, and one line for each mistake in it."""

import pytest

from mistake import Mistake
from scripts import plan


@pytest.mark.parametrize(
  "grids, settings",
  [
    ([["lr=1e-3,2e-3", "mixer=s5"]], [{"lr": 1e-3, "mixer": "s5"}, {"lr": 2e-3, "mixer": "s5"}]),
    ([["a=1,2", "b=x,y"]], [{"a": a, "b": b} for a in (1, 2) for b in "xy"]),
    (
      [["mixer=s5"], ["pattern=ma", "m=mamba", "a=softmax"]],
      [{"mixer": "s5"}, dict(pattern="ma", m="mamba", a="softmax")],
    ),
    ([["data.stages=((0,1),(5,2)),()"]], [{"data.stages": ((0, 1), (5, 2))}, {"data.stages": ()}]),
    ([["generate.prompt='a, b',c"]], [{"generate.prompt": "a, b"}, {"generate.prompt": "c"}]),
    ([["tie=true,False"]], [{"tie": True}, {"tie": False}]),
  ],
)
def test_a_grid_is_each_value_with_each_other(grids, settings):
  assert plan.grid(grids) == settings


@pytest.mark.parametrize(
  "grids, message",
  [
    ([["mixer"]], "is not key=value"),
    ([["mixer="]], "is not key=value"),
    ([["lr=1,,2"]], "has an empty value"),
    ([["lr=1", "lr=2"]], "lr stands twice"),
    ([["lr=1,1"]], "'lr=1'] more than once"),
    ([["lr=1"], ["lr=1.0,1"]], "'lr=1'] more than once"),
    ([["data.stages=(1"]], "("),
  ],
)
def test_what_is_wrong_with_a_grid_is_a_mistake(grids, message):
  with pytest.raises(Mistake) as caught:
    plan.grid(grids)
  assert message in str(caught.value)
