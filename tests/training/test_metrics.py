"""What a run writes down, and how its speed is measured."""

import contextlib
import json
import math
import os
import resource
import sys
import time

import jax
import numpy as np
import pytest
import rich.console

from training import hardware, metrics, rows


def writer(workdir, first=0, steps=10, **more):
  workdir.mkdir(exist_ok=True)
  return metrics.Writer(workdir, first=first, steps=steps, config={}, **more)


def test_rows_are_written_at_once_and_numbers_that_are_none_as_null(tmp_path, capsys):
  out = writer(tmp_path)
  row = {"train/loss": 2.5, "train/tokens_per_s": 12345.0, "train/flops_per_s": 2.5e9}
  out.log(1, row, left=75.4)
  out.log(2, {"eval/valid/loss": math.nan})
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  assert json.loads(lines[0]) == {
    "step": 1,
    "train/loss": 2.5,
    "train/tokens_per_s": 12345.0,
    "train/flops_per_s": 2.5e9,
  }
  assert json.loads(lines[1]) == {"step": 2, "eval/valid/loss": None}
  printed = capsys.readouterr().out.splitlines()
  assert printed[0] == "step 1/10  loss 2.5  12.3k tokens/s  2.5G FLOP/s  0:01:15 left"
  out.close()
  assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("terminal", [False, True])
def test_what_takes_its_time_is_a_line_or_stands_beside_the_bar(tmp_path, capsys, monkeypatch, terminal):
  monkeypatch.setattr(metrics, "Console", lambda **more: rich.console.Console(force_terminal=terminal, **more))
  out = writer(tmp_path)
  described = lambda: out._progress.tasks[0].description if terminal else ""
  out.log(1, {"train/loss": 2.5})
  before = described()
  with out.doing("evaluating validation: 3 batches"):
    inside = described()
  assert described() == before
  out.close()
  assert "evaluating validation: 3 batches" in (inside if terminal else capsys.readouterr().out)


def test_rows_of_steps_that_were_not_saved_are_dropped(tmp_path):
  out = writer(tmp_path)
  for step in (1, 2, 3):
    out.log(step, {"train/loss": float(step)})
  out.close()
  with (tmp_path / "metrics.jsonl").open("a") as file:
    file.write('{"step": 2, "train/lo')
  out = writer(tmp_path, first=2)
  out.log(3, {"train/loss": 30.0})
  out.close()
  assert [(row["step"], row["train/loss"]) for row in metrics.read_rows(tmp_path / "metrics.jsonl")] == [
    (1, 1.0),
    (2, 2.0),
    (3, 30.0),
  ]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_no_rows_can_be_added_to_is_refused(tmp_path, make):
  make(tmp_path / "metrics.jsonl")
  with pytest.raises(ValueError, match="metrics.jsonl is no plain file"):
    rows.Rows(tmp_path / "metrics.jsonl", last=-1)


def test_tensorboard_events_hold_the_rows(tmp_path):
  out = writer(tmp_path)
  out.log(1, {"train/loss": 2.5})
  out.close()
  (events,) = (tmp_path / "tensorboard").iterdir()
  assert b"train/loss" in events.read_bytes()


def test_best_keeps_the_lowest_loss_and_the_highest_accuracy():
  best = {}
  for step, loss, accuracy in ((1, 3.0, 0.1), (2, 1.0, 0.3), (3, math.nan, 0.2), (4, 2.0, 0.3)):
    best = metrics.better(best, step, {"eval/a/loss": loss, "eval/a/accuracy": accuracy})
  assert best == {"eval/a/loss": {"value": 1.0, "step": 2}, "eval/a/accuracy": {"value": 0.3, "step": 2}}


def test_a_line_says_what_was_seen_and_what_share_of_the_peak(tmp_path, capsys):
  out = writer(tmp_path)
  clock = metrics.Clock(0.0, tokens=4096, flops=5.0)
  row = {"train/tokens": clock.seen(300), "train/mfu": 0.4321, "train/peak_bytes": 1.5 * 2**30}
  out.log(300, row)
  out.close()
  assert capsys.readouterr().out.splitlines()[0] == "step 300/10  1.23M tokens  MFU 43.2 %  peak 1.5 GiB"


@pytest.mark.parametrize(
  "kind, peak",
  [
    ("TPU v5 lite", 197e12),
    ("TPU v5e", 197e12),
    ("TPU v5", 459e12),
    ("TPU v5p", 459e12),
    ("TPU v6 lite", 918e12),
    ("TPU v4", 275e12),
    ("NVIDIA H100 80GB HBM3", 989e12),
    ("NVIDIA H100 PCIe", 756e12),
    ("NVIDIA H200", 989e12),
    ("NVIDIA A100-SXM4-40GB", 312e12),
    ("cpu", None),
  ],
)
def test_the_peak_of_a_device_is_that_of_its_kind(kind, peak):
  assert hardware.named(kind) == peak


def test_a_device_without_a_peak_is_measured_and_a_cpu_counts_once(monkeypatch):
  monkeypatch.setattr(hardware, "measured", lambda side, dtype: 5e9)
  assert hardware.peak() == (5e9, "the measured 5 GFLOP/s of a float32 product of 512 rows")
  monkeypatch.setattr(hardware, "named", lambda kind: 1e12)
  assert hardware.peak().flops_per_s == 1e12 * jax.device_count()


def test_a_rate_and_the_memory_in_use_are_measured():
  assert 1e6 < hardware.measured(256, "float32") < 1e16
  assert hardware.peak_bytes() > 2**24


def test_the_clock_leaves_out_the_first_step_and_pauses(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(time, "monotonic", lambda: now[0])
  work = np.zeros(1)
  clock = metrics.Clock(50.0, tokens=8, flops=5.0)
  clock.peak = 80.0
  for step, seconds in enumerate((30.0, 2.0, 4.0)):
    now[0] += seconds
    clock.tick(step, first=0, work=work)
    if step == 0:
      assert clock.lap() == {}, "the first step is not measured"
    if step == 1:
      with clock.pause(work):
        now[0] += 1000.0
  assert clock.lap() == pytest.approx({"train/tokens_per_s": 8 / 3, "train/flops_per_s": 40.0, "train/mfu": 0.5})
  assert clock.per_step == pytest.approx(3.0)
  assert clock.seconds == pytest.approx(50 + 36 + 1000)


def test_wandb_that_is_not_installed_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, "wandb", None)
  assert metrics.find_wandb(False) is None
  with pytest.raises(ValueError, match="wandb is not installed"):
    metrics.find_wandb(True)


def test_wandb_gets_every_row_and_one_identity_for_a_resumed_run(tmp_path):
  runs = []

  class Wandb:
    """Stands for the library."""

    def init(self, **settings):
      runs.append({"settings": settings, "rows": []})
      return self

    def log(self, row, step):
      runs[-1]["rows"].append((step, row))

    def finish(self):
      runs[-1]["finished"] = True

  for first in (0, 1):
    out = writer(tmp_path, first=first, wandb=Wandb())
    out.log(first + 1, {"train/loss": 1.0})
    out.close()
  assert [run["rows"] for run in runs] == [[(1, {"train/loss": 1.0})], [(2, {"train/loss": 1.0})]]
  assert runs[0]["settings"]["id"] == runs[1]["settings"]["id"]
  assert all(run["finished"] for run in runs)


@contextlib.contextmanager
def full_disk(size):
  """No file grows beyond `size` bytes meanwhile."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_rows_wait_while_the_disk_is_full_and_the_run_goes_on(tmp_path, capsys):
  out = rows.Rows(tmp_path / "rows.jsonl", last=-1)
  events = rows.Events(tmp_path / "events", first=None)
  out.write({"step": 1})
  with full_disk((tmp_path / "rows.jsonl").stat().st_size + 3):
    for step in (2, 3):
      out.write({"step": step})
      events.write(step, {"train/loss": 1.0})
  assert [row["step"] for row in rows.read_rows(tmp_path / "rows.jsonl")] == [1]
  out.write({"step": 4})
  events.write(4, {"train/loss": 1.0})
  out.close()
  events.close()
  assert [row["step"] for row in rows.read_rows(tmp_path / "rows.jsonl")] == [1, 2, 3, 4]
  assert capsys.readouterr().err.count("warning") == 2


def test_a_file_without_anything_to_drop_is_not_rewritten(tmp_path):
  path = tmp_path / "rows.jsonl"
  path.write_text('{"step": 0}\n{"step": 2}\n')
  before = path.stat().st_ino
  rows.Rows(path, last=2).close()
  assert path.stat().st_ino == before
  rows.Rows(path, last=-1).close()
  assert path.read_text() == "", "a run that starts anew writes the row of step 0 once"
