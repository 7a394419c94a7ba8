"""What the pictures of runs show, from made-up metrics and answers; no run is trained."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from mistake import Mistake
from scripts import task_pictures as pictures
from scripts.pictures import forecast, positions


def answers(targets, logits, **batch):
  return pictures.Answers({"targets": targets, "weights": np.ones(targets.shape[: logits.ndim - 1]), **batch}, logits)


def test_sets_are_lines_by_the_last_number_of_their_names(tmp_path):
  rows = [
    {"step": 0, "eval/length_64/accuracy": 0.1, "eval/length_16/accuracy": 0.2},
    {"step": 5, "eval/length_64/accuracy": 0.5, "eval/length_16/accuracy": 0.9, "eval/validation/accuracy": 1.0},
    {"step": 6, "train/loss": 1.0},
  ]
  (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
  row = pictures.last_evaluation(tmp_path, "accuracy")
  assert pictures.by_number(row, "accuracy") == {"length_#": [(16.0, 0.9), (64.0, 0.5)]}
  both = {f"eval/length_{n}_depth_{d}/accuracy": n + d for n in (8, 9) for d in (0, 50)}
  assert pictures.by_number(both, "accuracy") == {
    "length_8_depth_#": [(0.0, 8), (50.0, 58)],
    "length_9_depth_#": [(0.0, 9), (50.0, 59)],
  }
  assert pictures.by_number({"long_8/validation/loss": 1.0, "long_9/validation/loss": 2.0}, "loss") == {
    "long_#/validation": [(8.0, 1.0), (9.0, 2.0)]
  }
  assert pictures.draw_sets([tmp_path], "accuracy").axes[0].lines[0].get_ydata().tolist() == [0.9, 0.5]
  assert pictures.draw_sets([tmp_path], "f1") is None


def test_confusion_is_the_share_of_each_label():
  found = answers(np.array([0, 0, 0, 2]), np.eye(3)[[0, 0, 1, 2]])
  image = pictures.draw_confusion(found, 3).axes[0].images[0].get_array()
  np.testing.assert_allclose(image, [[200 / 3, 100 / 3, 0], [0, 0, 0], [0, 0, 100]])


@pytest.mark.parametrize(
  "found,text",
  [
    (answers(np.array([[1.5]]), np.array([[2.0]])), "target 1.5, predicted 2"),
    (answers(np.array([2]), np.eye(3)[[1]]), "target 2, predicted 1"),
    (answers(np.array([[0, 2]]), np.eye(3)[[[0, 1]]]), "1 of 2 right; targets [0, 2], predicted [0, 1]"),
  ],
)
def test_a_row_says_what_is_so_and_what_was_predicted(found, text):
  assert pictures.caption(found, 0) == text


def test_samples_are_images_curves_or_tokens():
  rng = np.random.default_rng(0)
  draw = lambda inputs, **task: pictures.draw_samples(
    SimpleNamespace(task=SimpleNamespace(**{"features": None, "vocab": None, **task})),
    answers(np.zeros(len(inputs), int), np.zeros((len(inputs), 2)), inputs=inputs),
  )
  assert len(draw(rng.random((3, 64, 1)), features=1).axes[0].images) == 1
  assert len(draw(rng.random((3, 60, 2)), features=2).axes[0].lines) == 2
  text = np.frombuffer(b"ab\ncd", np.uint8)[None].astype(int)
  assert draw(text, vocab=256).axes[0].texts[0].get_text() == "ab·cd"
  assert draw(text, vocab=128).axes[0].texts[0].get_text() == "97 98 10 99 100"


def test_forecasts_are_drawn_after_their_windows_and_errors_by_steps():
  task = SimpleNamespace(predict="next", ahead="each", horizon=2)
  steps = forecast.steps_ahead(task)
  assert (steps.tolist(), forecast.steps_ahead(SimpleNamespace(predict="label"))) == ([1, 2], None)
  assert forecast.steps_ahead(SimpleNamespace(predict="next", ahead="last", horizon=5)).tolist() == [5]
  rng = np.random.default_rng(0)
  batch = {"inputs": rng.normal(size=(20, 30, 3)), "targets": rng.normal(size=(20, 4))}
  found = rng.normal(size=(20, 4))
  pages = forecast.draw_samples(batch, found, steps).axes
  first = [line.get_ydata() for line in pages[0].lines]
  np.testing.assert_array_equal(first[0], batch["inputs"][0, -8:, 0])
  assert [y.tolist() for y in first[1:3]] == [batch["targets"][0, ::2].tolist(), found[0, ::2].tolist()]
  # the second column's window, and the rule at the window's end
  assert (len(pages), len(first)) == (9, 7)
  ours, repeated = (line.get_ydata() for line in forecast.draw_errors(batch, found, steps, "r").axes[0].lines)
  np.testing.assert_allclose(ours[1], ((found - batch["targets"])[:, 2:] ** 2).mean())
  last = batch["inputs"][:, -1, :2]
  np.testing.assert_allclose(repeated[0], ((last - batch["targets"][:, :2]) ** 2).mean())


def test_rows_that_do_not_count_are_left_out_and_a_wrong_set_is_named():
  batch = {"inputs": np.arange(4)[:, None], "targets": np.zeros(4, int), "weights": np.array([1, 1, 1, 0])}
  run = SimpleNamespace(
    name="r",
    task=SimpleNamespace(eval_sets=lambda: {"validation": lambda: iter([batch, batch])}),
    predict=lambda batch: np.zeros((4, 2)),
  )
  assert pictures.collect(run, None, 8).batch["inputs"][:, 0].tolist() == [0, 1, 2, 0, 1, 2]
  assert len(pictures.collect(run, "validation", 2).answers) == 2
  with pytest.raises(Mistake, match="--set=validatoin: r has no such evaluation set .did you mean 'validation'"):
    pictures.collect(run, "validatoin", 8)


def test_losses_by_position_are_means_over_rows_that_count():
  logits = np.log(np.array([[[0.5, 0.5], [0.25, 0.75]], [[0.25, 0.75], [0.5, 0.5]], [[1.0, 1.0], [1.0, 1.0]]])) + 3
  weights = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
  batch = {"targets": np.array([[0, 0], [0, 1], [1, 1]]), "weights": weights}
  np.testing.assert_allclose(positions.losses(batch, logits), [1.5, 2.0], rtol=1e-6)
  nothing = positions.losses(batch | {"weights": weights * [1.0, 0.0]}, logits)
  assert np.isnan(nothing[1]), nothing


def test_lines_by_position_are_means_of_windows_beside_the_length_of_training():
  figure = positions.draw({"run": np.arange(40.0), "short": np.array([np.nan, 2.0])}, {"run": 20, "short": 20})
  line, other, rule = figure.axes[0].lines
  np.testing.assert_allclose(line.get_xydata(), [[10, 9.5], [30, 29.5]])
  np.testing.assert_allclose(other.get_xydata(), [[1, 2.0]])
  assert rule.get_xdata() == [20, 20]
