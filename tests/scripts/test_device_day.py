"""The day a GPU is at hand, without one: the plan, its clock, what it writes, and a rehearsal at toy sizes."""

import json
import sys

import pytest

from kernels import dispatch
from scripts import device_day
from scripts.device_day import Part

# stands in for a process with everything imported
FAKE = """
import json, os, sys, time
print('{"ready": true}', flush=True)
wanted = json.loads(sys.stdin.readline() or sys.exit(0))
say = lambda **row: print(json.dumps(row), flush=True)
if wanted["function"] == "check":
  right, calls = wanted["argument"] == "right", [["scan", "bfloat16"]]
  say(op="scan", dtype="bfloat16", impl="pallas_gpu", ok=right, calls=calls, worst=0.1, limit=0.2)
if wanted["function"] == "time_op":
  for name, ms in (("ours, pallas_gpu", 2.0), ("ours, associative", 3.0), ("ours, xla", 4.0), ("fla-core x", 1.0)):
    say(group="scan, forward", name=name, median_ms=ms, calls=[["scan", "bfloat16"]] if "pallas" in name else [])
  say(group="scan, forward", name="jla", missing="not installed")
if wanted["function"] == "hang":
  say(group="before", name="kernels off", median_ms=1.0)
  time.sleep(600)
if wanted["function"] == "die":
  os.abort()
"""


def run(tmp_path, *parts, seconds=60.0):
  make = lambda: device_day.Worker([sys.executable, "-c", FAKE])
  return device_day.run([Part(*part) for part in parts], tmp_path / "out", seconds=seconds, toy=False, make=make)


def test_rows_are_written_as_they_come_and_no_part_ends_the_others(tmp_path, capfd):
  parts = (("die", "", 20, ""), ("check", "right", 20, ""), ("hang", "", 4, ""), ("time_op", "", 20, ""))
  rows = run(tmp_path, *parts)
  assert [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()] == rows
  assert [row["part"] for row in rows] == ["die", "check right", "hang", "hang", *["time_op"] * 5]
  assert "ended with code -6" in rows[0]["error"]
  assert rows[3]["error"] == "killed: it took more than 4 s"
  assert "scan bfloat16 pallas_gpu: right, off by 0.1 of 0.2" in capfd.readouterr().out
  found = device_day.summary(rows, toy=False)
  assert found["right"] == {"scan bfloat16": True}
  assert found["gain"] == {"scan, forward": 1.5}
  assert found["worth"] == {"scan, forward": True}
  assert found["proven"] == {"scan": ["bfloat16"]}
  assert found["failed"] == ["die", "hang"]


def test_what_there_is_no_time_for_is_left_out(tmp_path):
  rows = run(tmp_path, ("check", "right", 20, ""), ("check", "wrong", 999, ""), seconds=30.0)
  assert "s are left" in rows[1]["left_out"]
  assert device_day.summary(rows, toy=False)["left_out"] == ["check wrong"]


def test_a_kernel_that_is_wrong_once_is_wrong():
  row = dict(op="scan", dtype="float32", impl="pallas_gpu")
  rows = [row | {"ok": ok} for ok in (True, False, True)] + [row | {"impl": "xla", "ok": True}]
  assert device_day.summary(rows, toy=False)["right"] == {"scan float32": False}


def test_each_type_is_proven_by_itself():
  ok = lambda op, numbers, ok=True: dict(impl="pallas_gpu", ok=ok, op=op, dtype=numbers, calls=[[op, numbers]])
  time = lambda group, name, op, numbers: dict(group=group, name=name, calls=[[op, numbers]])
  rows = [
    *(ok(op, numbers) for op in ("scan", "ssd", "step", "slow", "untimed") for numbers in ("bfloat16", "float32")),
    # wrong once, right in the other type
    ok("scan", "float32", False),
    time("fast", "ours, pallas_gpu", "scan", "bfloat16"),
    time("fast", "ours, pallas_gpu", "scan", "float32"),
    time("fast", "ours, pallas_gpu", "ssd", "bfloat16"),
    time("even", "ours, pallas_gpu", "ssd", "float32"),
    time("fast", "ours, pallas_gpu", "slow", "float32"),
    time("even", "ours, pallas_gpu", "slow", "float32"),
    # a model, most of whose time is elsewhere, speaks for what was timed nowhere else
    time("even", "kernels on", "ssd", "bfloat16"),
    time("fast", "kernels on", "step", "float32"),
  ]
  proven = device_day.proven(rows, {"fast": 1.5, "even": 1.0})
  assert proven == {"scan": ["bfloat16"], "ssd": ["bfloat16"], "step": ["float32"]}


def test_every_part_can_be_found(capsys):
  from scripts.benchmarks import device_parts, kernels, ops

  arguments = {
    "check": ops.SIZES,
    "time_op": kernels.OPS,
    "train": device_parts.MODELS,
    "generate": device_parts.MODELS,
  }
  for part in device_day.PARTS:
    assert callable(getattr(device_parts, part.function))
    assert part.argument in arguments.get(part.function, {"": None}), part.name
  assert device_day.main(["--plan", "--seconds", "480"]) == 0
  assert f"{len(device_day.PARTS)} parts in 480 s" in capsys.readouterr().out
  with pytest.raises(SystemExit, match="no part has nothing in its name"):
    device_day.chosen(["nothing"])


@pytest.mark.slow
def test_a_rehearsal_ends_with_every_part_done(tmp_path):
  assert device_day.main(["--toy", "--out", str(tmp_path)]) == 0
  rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
  assert {row["part"] for row in rows} == {part.name for part in device_day.PARTS}
  found = json.loads((tmp_path / "summary.json").read_text())
  assert found["toy"]
  assert found["failed"] == found["left_out"] == []
  assert all(found["right"].values())
  for op in ("ssd", "conv_step", "selective_step", "ssd_step"):
    assert {row["dtype"] for row in rows if row.get("op") == op} == {"float32", "bfloat16"}
  # a step widens what it is given, and a kernel is proven for what it is handed
  handed = {(row["op"], row["dtype"]): row["calls"] for row in rows if "ok" in row}
  assert handed["ssd_step", "bfloat16"] == [["ssd_step", "float32"]]
  assert ["ssd", "bfloat16"] in handed["ssd", "bfloat16"]
  # no kernel has run
  assert found["proven"] == {}
  assert json.loads((tmp_path / "proven.json").read_text()) == dispatch.PROVEN
