"""In which order the rows of files are evaluated, and what a run says of them."""

import numpy as np
import pytest

from data.task import build_task


@pytest.fixture
def rng():
  return np.random.default_rng(0)


def test_the_first_batches_of_an_evaluation_have_all_classes(tmp_path, rng):
  """Files often have class after class."""
  np.savez(tmp_path / "a.npz", x=rng.normal(size=(400, 3, 1)), y=np.repeat([0, 1], 200))
  for seed in (0, 1):
    task = build_task("arrays", dir=str(tmp_path), files="a.npz", test=0.5, batch=32, seed=seed)
    batches = list(task.eval_sets()["test"]())
    first = batches[0]["targets"]
    assert 8 < first.sum() < 24, "an even share of 32 rows, within six standard deviations"
    seen = np.concatenate([batch["inputs"][batch["weights"] > 0] for batch in batches])
    assert np.array_equal(np.sort(seen, axis=0), np.sort(task.batch_at(task.rows["test"])["inputs"], axis=0)), (
      "each row once"
    )
    again = next(task.eval_sets()["test"]())["inputs"]
    assert np.array_equal(batches[0]["inputs"], again)


def test_a_run_says_what_its_data_are_and_what_is_not_read(tmp_path, rng):
  np.savez(tmp_path / "a.npz", x=rng.normal(size=(40, 6, 2)), y=np.arange(40) % 3, lengths=np.full(40, 6))
  task = build_task("arrays", dir=str(tmp_path), files="a.npz")
  assert task.notice.splitlines() == [
    "data: 40 sequences of 6 steps of 2 features; train 32, validation 4, test 4 rows; 3 classes",
    "not read of the file: lengths",
  ]
  lines = ["t,a,b,kind", *(f"{i},{i % 7},1,{('cat', 'dog')[i % 2]}" for i in range(40))]
  (tmp_path / "a.csv").write_text("\n".join(lines))
  task = build_task("arrays", dir=str(tmp_path), files="a.csv", inputs="", targets="kind")
  assert task.notice.split("; ") == [
    "data: 40 sequences of 3 steps of 1 feature",
    "columns t, a, b",
    "train 32, validation 4, test 4 rows",
    "2 classes: 0 cat, 1 dog",
  ]
