"""Forecasts of several steps and columns, less the last value that is read, beside sums done by hand."""

import numpy as np
import pytest

from configs import arrays
from data.task import build_task
from mistake import Mistake
from tests.refused import refused

FIELDS = dict(predict="next", inputs="", targets="heat load", length=4, horizon=3, validation=0.2, test=0.2)


def rows_of(task, split):
  return task.batch_at(task.rows[split])


@pytest.fixture
def table(tmp_path):
  steps = np.arange(100)
  rows = [f"{i},{i * i % 17},{2 * i},{3 * i}" for i in steps]
  (tmp_path / "a.csv").write_text("\n".join(["hour,noise,load,heat", *rows]))
  return str(tmp_path / "a.csv")


def test_each_of_the_next_steps_of_several_columns(table):
  task = build_task("arrays", files=table, **FIELDS, ahead="each", normalise=False)
  batch = rows_of(task, "test")
  # heat rises by three a step, load by two
  last = batch["inputs"][:, -1, :2]
  assert task.data.inputs == ("heat", "load", "hour", "noise")
  np.testing.assert_array_equal(batch["targets"], np.concatenate([last + [3, 2], last + [6, 4], last + [9, 6]], axis=1))
  assert "test mse 30.33, mae 5" in task.notice, "means of (9, 36, 81, 4, 16, 36) and of (3, 6, 9, 2, 4, 6)"
  assert "test mse 58.5, mae 7.5" in build_task("arrays", files=table, **FIELDS, normalise=False).notice


@pytest.mark.parametrize("ahead", ["last", "each"])
def test_forecasts_less_the_last_value(table, ahead):
  plain, less = (
    build_task("arrays", files=table, **FIELDS, ahead=ahead, from_last=from_last) for from_last in (False, True)
  )
  before, after = rows_of(plain, "validation"), rows_of(less, "validation")
  last = before["inputs"][:, -1:, :2]
  np.testing.assert_allclose(after["inputs"][..., :2], before["inputs"][..., :2] - last, atol=1e-6)
  np.testing.assert_array_equal(after["inputs"][..., 2:], before["inputs"][..., 2:])
  steps = before["targets"].reshape(len(last), -1, 2)
  np.testing.assert_allclose(after["targets"].reshape(steps.shape), steps - last, atol=1e-6)
  mse = np.square(after["targets"]).mean()
  assert f"validation mse {mse:.4g}" in less.notice, "an answer of 0 repeats the last value"


def test_the_config_counts_the_numbers_of_an_answer():
  arg = "files=a.csv,predict=next,targets='heat load',length=4,horizon=3"
  outputs = lambda more: arrays.get_config(arg + more).model.head.get("outputs", 1)
  assert [outputs(more) for more in ("", ",ahead=each", ",ahead=each,head.outputs=9")] == [2, 6, 9]
  assert "outputs" not in arrays.get_config(f"{arg},targets=heat").model.head
  # the columns of an .npz have no names
  assert arrays.get_config("files=a.npz,predict=next,targets='',length=4,horizon=3,ahead=each").model.head.outputs == 3


WRONG = {
  "a column that is no input": (dict(inputs="hour heat"), "data.targets='load' is forecast, so add it to"),
  "a column that there is not": (dict(targets="heat lode"), "has no column data.targets='lode'.*'load'"),
  "steps ahead": (dict(ahead="all"), "data.ahead='all'.*'last', 'each'"),
  "tokens": (dict(from_last=True, tokens=9), "data.from_last=True.*tokens"),
  "labels of several steps": (dict(predict="label", ahead="each"), "data.ahead='each'.*no 'next'"),
  "labels": (dict(predict="label", from_last=True), "data.from_last=True.*no 'next'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_forecast_is_refused(table, case):
  fields, message = WRONG[case]
  refused(message, lambda: build_task("arrays", files=table, **FIELDS | fields).sizes, error=Mistake)
