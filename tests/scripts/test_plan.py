"""The settings that `--grid`, `--only` and `--seeds` mean, and one line for each mistake in them."""

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


SETTINGS = [{"lr": lr, "mixer": mixer} for lr in (1e-3, 2e-3) for mixer in ("s5", "mamba")] + [{"pattern": "ma"}]


@pytest.mark.parametrize(
  "parts, kept",
  [
    (["mixer=s5"], [0, 2]),
    (["mixer=s5,mamba"], [0, 1, 2, 3]),
    (["lr=0.002", "mixer=s5"], [2]),
    (["pattern=ma"], [4]),
  ],
)
def test_only_keeps_the_settings_that_have_the_values(parts, kept):
  assert plan.only(SETTINGS, parts) == [SETTINGS[i] for i in kept]


@pytest.mark.parametrize(
  "parts, message",
  [
    (["mixer=s4"], "it is one of s5, mamba"),
    (["width=64"], "settings have lr, mixer, pattern"),
    (["mixer=s5", "pattern=ma"], "no setting has all of it"),
    (["mixer"], "--only 'mixer' is not key=value"),
    (["lr=1", "lr=2"], "lr stands twice"),
  ],
)
def test_what_is_wrong_with_a_choice_is_a_mistake(parts, message):
  with pytest.raises(Mistake) as caught:
    plan.only(SETTINGS, parts)
  assert message in str(caught.value)


def test_every_setting_runs_with_every_seed():
  assert plan.seeded(SETTINGS[:2], "0,7") == [setting | {"seed": seed} for seed in (0, 7) for setting in SETTINGS[:2]]


@pytest.mark.parametrize(
  "settings, seeds, message",
  [
    (SETTINGS, "0,x", "'x' is no whole number"),
    (SETTINGS, "0.5", "0.5 is no whole number"),
    (SETTINGS, "true", "True is no whole number"),
    (SETTINGS, "1,1", "more than once"),
    (SETTINGS, "0,,1", "empty value"),
    ([{"seed": 1}], "0", "have seeds of their own"),
  ],
)
def test_what_is_wrong_with_seeds_is_a_mistake(settings, seeds, message):
  with pytest.raises(Mistake) as caught:
    plan.seeded(settings, seeds)
  assert message in str(caught.value)
