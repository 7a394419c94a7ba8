"""Checkpoints: exact round trips, damage found and stepped over, nothing deleted, other trees refused."""

import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mistake import Mistake
from tests import child
from tests.refused import refused
from training import manifest
from training.checkpoint import Checkpoints


class State(NamedTuple):
  step: jax.Array
  params: dict
  opt: optax.OptState
  rng: jax.Array
  carry: tuple = ()


def make(step: int, width: int = 4) -> State:
  params = {
    "dense": {"kernel": jnp.arange(3.0 * width).reshape(3, width) + step, "bias": jnp.full(width, step, jnp.bfloat16)}
  }
  params["nothing"] = jnp.zeros((0, 2))
  opt = optax.chain(optax.clip(1.0), optax.adam(1e-3)).init(params)
  return State(jnp.int32(step), params, opt, jax.random.key(step), (jnp.ones((2, 3), jnp.complex64) * 1j,))


def same(a, b) -> bool:
  plain = lambda x: np.asarray(jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
  pairs = jax.tree.map(lambda x, y: x.dtype == y.dtype and np.array_equal(plain(x), plain(y)), a, b)
  return jax.tree.structure(a) == jax.tree.structure(b) and all(jax.tree.leaves(pairs))


def abstract(state):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)


def filled(folder: Path, steps=(1, 2, 3), keep=None) -> Checkpoints:
  checkpoints = Checkpoints(folder, keep=keep)
  for n in steps:
    checkpoints.save(n, make(n), data_state=b"\x00\xff%d" % n, extra={"best": 1.5, "clock": n})
  checkpoints.wait()
  return checkpoints


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Path:
  """A folder with steps 1, 2, 3, written once; tests copy it."""
  folder = tmp_path_factory.mktemp("three") / "checkpoints"
  filled(folder).close()
  return folder


def copy(three: Path, tmp_path: Path) -> Path:
  return Path(shutil.copytree(three, tmp_path / "checkpoints"))


def largest(step: Path) -> Path:
  return max((p for p in (step / "state").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(path: Path) -> None:
  raw = bytearray(path.read_bytes())
  raw[len(raw) // 2] ^= 1
  path.write_bytes(raw)


def test_round_trip_is_exact(three):
  restored = Checkpoints(three).restore(abstract(make(0)))
  assert restored.step == 3
  assert same(restored.state, make(3))
  assert restored.data_state == b"\x00\xff3"
  assert restored.extra == {"best": 1.5, "clock": 3}


def test_named_step_is_restored(three):
  restored = Checkpoints(three, read_only=True).restore(make(0), step=2)
  assert restored.step == 2
  assert same(restored.state, make(2))


def test_no_checkpoint_is_none(tmp_path):
  assert Checkpoints(tmp_path / "new").restore(make(0)) is None
  assert Checkpoints(tmp_path / "absent", read_only=True).restore(make(0)) is None
  assert not (tmp_path / "absent").exists()


def test_missing_step_is_an_error_that_lists_the_steps(three):
  with pytest.raises(ValueError, match=r"checkpoint 7 .* does not exist; steps there are \[1, 2, 3\]"):
    Checkpoints(three).restore(make(0), step=7)


@pytest.mark.parametrize(
  "damage, reason",
  [
    (lambda d: flip(largest(d)), "has changed since it was written"),
    (lambda d: os.truncate(largest(d), 10), "has 10 bytes"),
    (lambda d: largest(d).unlink(), "is missing"),
    (lambda d: [shutil.rmtree(p) if p.is_dir() else p.unlink() for p in d.iterdir()], "folder is empty"),
    (lambda d: (d / "manifest.json").unlink(), "no manifest.json"),
    (lambda d: (d / "manifest.json").write_text("{"), "cannot be read"),
    (lambda d: (d / "manifest.json").write_text('{"step": 3, "files": {"a": 1}}'), "cannot be read"),
  ],
  ids=["flipped bit", "truncated", "file removed", "emptied", "no manifest", "broken manifest", "strange manifest"],
)
def test_damaged_newest_step_is_renamed_and_the_one_before_used(three, tmp_path, caplog, damage, reason):
  folder = copy(three, tmp_path)
  damage(folder / "3")
  left = sorted(p.relative_to(folder / "3") for p in (folder / "3").rglob("*"))
  checkpoints = Checkpoints(folder)
  restored = checkpoints.restore(make(0))
  assert restored.step == 2
  assert same(restored.state, make(2))
  assert sorted(p.relative_to(folder / "3.bad") for p in (folder / "3.bad").rglob("*")) == left
  message = caplog.records[-1].getMessage()
  assert reason in message
  assert "3.bad" in message
  # its number is free again, and what is saved under it restores
  checkpoints.save(3, make(33))
  checkpoints.close()
  assert same(Checkpoints(folder).restore(make(0)).state, make(33))


def test_second_damage_of_a_step_gets_a_number_of_its_own(three, tmp_path):
  folder = copy(three, tmp_path)
  (folder / "3.bad").mkdir()
  flip(largest(folder / "3"))
  flip(largest(folder / "2"))
  assert Checkpoints(folder).restore(make(0)).step == 1
  assert sorted(p.name for p in folder.iterdir() if "bad" in p.name) == ["2.bad", "3.bad", "3.bad.1"]


def test_read_only_changes_nothing(three, tmp_path):
  folder = copy(three, tmp_path)
  flip(largest(folder / "3"))
  (folder / "4.orbax-checkpoint-tmp").mkdir()
  before = sorted(p for p in folder.rglob("*"))
  assert Checkpoints(folder, read_only=True).restore(make(0)).step == 2
  refused("has changed since it was written", lambda: Checkpoints(folder, read_only=True).restore(make(0), step=3))
  assert sorted(p for p in folder.rglob("*")) == before


@pytest.mark.parametrize("when", ["it is chosen", "it is read"])
def test_a_reader_finds_the_newest_step_while_older_ones_are_deleted(three, tmp_path, monkeypatch, when):
  folder = copy(three, tmp_path)
  (folder / "3").rename(tmp_path / "3")
  read = manifest.why_bad if when == "it is chosen" else Checkpoints.arrays

  def saved_meanwhile(*args):
    if (tmp_path / "3").exists():
      (tmp_path / "3").rename(folder / "3")
      for step in (1, 2):
        shutil.rmtree(folder / str(step))
    return read(*args)

  if when == "it is chosen":
    monkeypatch.setattr(manifest, "why_bad", saved_meanwhile)
  else:
    monkeypatch.setattr(Checkpoints, "arrays", saved_meanwhile)
  restored = Checkpoints(folder, read_only=True).restore(make(0))
  assert restored.step == 3
  assert same(restored.state, make(3))


def test_unfinished_saves_move_to_trash(three, tmp_path):
  folder = copy(three, tmp_path)
  unfinished = folder / "4.orbax-checkpoint-tmp"
  unfinished.mkdir()
  (unfinished / "part").write_text("x")
  assert Checkpoints(folder).restore(make(0)).step == 3
  assert (folder / "trash" / unfinished.name / "part").read_text() == "x"
  assert not unfinished.exists()


def test_save_that_would_be_skipped_is_an_error(three, tmp_path):
  folder = copy(three, tmp_path)
  checkpoints = Checkpoints(folder)
  refused(r"checkpoint 2 was due but not saved.*\[1, 2, 3\]", lambda: checkpoints.save(2, make(2)), error=Mistake)
  checkpoints.close()


def test_second_run_in_the_same_place_is_refused(tmp_path):
  first = Checkpoints(tmp_path)
  assert first.restore(make(0)) is None
  refused("is in use by another run", lambda: Checkpoints(tmp_path).restore(make(0)))
  assert Checkpoints(tmp_path, read_only=True).restore(make(0)) is None
  first.close()
  assert Checkpoints(tmp_path).restore(make(0)) is None


def test_keep_deletes_the_oldest_after_the_newest_is_complete(tmp_path):
  checkpoints = filled(tmp_path, steps=(1, 2, 3), keep=2)
  assert checkpoints.steps() == [2, 3]
  assert all((tmp_path / str(n) / manifest.NAME).is_file() for n in (2, 3))
  assert list((tmp_path / "trash").iterdir()) == []
  checkpoints.close()


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda s: s._replace(step=s.step.astype(jnp.uint32)), "'step' is int32.* there and uint32"),
    (lambda s: s._replace(params={**s.params, "b": jnp.ones(2)}), r"'params/b' is nothing there and float32\[2\]"),
    (lambda s: s._replace(params={"dense": s.params["dense"]}), "'params/nothing' is float32.* there and nothing"),
    (lambda s: s._replace(rng=jax.random.key(0, impl="rbg")), r"'rng' is key<fry>\[\] there and key<rbg>\[\]"),
    (lambda s: make(3, width=5), r"'params/dense/bias' is bfloat16\[4\] there and bfloat16\[5\]"),
  ],
  ids=["dtype", "new leaf", "leaf gone", "rng", "shape"],
)
def test_other_trees_are_refused_by_path(three, change, message):
  refused(message, lambda: Checkpoints(three, read_only=True).restore(abstract(change(make(0)))))


def test_state_may_be_donated_right_after_save(tmp_path):
  update = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
  x = jnp.arange(1 << 20, dtype=jnp.float32)
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(1, {"x": x})
  x = update(x)
  jax.block_until_ready(x)
  restored = checkpoints.restore({"x": x})
  assert np.array_equal(restored.state["x"], np.arange(1 << 20))
  checkpoints.close()


def test_error_while_saving_is_raised_by_the_next_call(tmp_path, monkeypatch):
  def full(folder, step, run):
    raise OSError(28, "No space left on device")

  checkpoints = Checkpoints(tmp_path)
  monkeypatch.setattr(manifest, "write", full)
  checkpoints.save(1, {"x": jnp.ones(2)})
  refused("No space left", checkpoints.wait, error=Mistake)
  checkpoints.close()


@pytest.mark.parametrize("keep", [0, -1])
def test_keep_below_one_is_an_error(tmp_path, keep):
  refused(f"keep={keep}", Checkpoints, tmp_path, keep=keep)


def test_bad_arguments_are_errors(tmp_path):
  refused("is a URL", Checkpoints, "gs://bucket/run")
  refused("leaf 'x' is 3 of type int", lambda: Checkpoints(tmp_path).save(1, {"x": 3}))


def test_json_data_state_and_relative_path(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  checkpoints = Checkpoints("here")
  checkpoints.save(5, {"x": jnp.ones(2)}, data_state={"next": 12, "of": ["a"]})
  checkpoints.close()
  assert Checkpoints(tmp_path / "here").restore({"x": jnp.ones(2)}).data_state == {"next": 12, "of": ["a"]}


SHARDED = """
import sys, jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_num_cpu_devices", 4)
from jax.sharding import NamedSharding, PartitionSpec as P
from training.checkpoint import Checkpoints
mesh = jax.make_mesh((2, 2), ("data", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
put = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, P(*spec)))
state = {"x": put(jnp.arange(32.0).reshape(4, 8), "data", "tensor"), "y": put(jnp.arange(4.0), "tensor")}
state["rng"] = put(jax.random.key(7))
c = Checkpoints(sys.argv[1])
if sys.argv[2] == "save":
  c.save(1, state)
else:
  got = c.restore(state).state
  assert got["x"].sharding == state["x"].sharding, got["x"].sharding
  assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), got, state))
c.close()
"""


def test_saved_on_four_devices_restores_on_one_and_back(tmp_path):
  child.python("-c", SHARDED, str(tmp_path), "save")
  like = {"x": jnp.zeros((4, 8)), "y": jnp.zeros(4), "rng": jax.random.key(0)}
  checkpoints = Checkpoints(tmp_path)
  state = checkpoints.restore(like).state
  assert np.array_equal(state["x"], np.arange(32.0).reshape(4, 8))
  assert np.array_equal(jax.random.key_data(state["rng"]), jax.random.key_data(jax.random.key(7)))
  checkpoints.save(2, state)
  checkpoints.close()
  child.python("-c", SHARDED, str(tmp_path), "restore")


PROCESS = """
import json, sys, jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_num_cpu_devices", 2)
folder, port, index = sys.argv[1], sys.argv[2], int(sys.argv[3])
jax.distributed.initialize("127.0.0.1:" + port, 2, index, initialization_timeout=60)
from jax.sharding import NamedSharding, PartitionSpec as P
from training.checkpoint import Checkpoints
mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
sharded, same = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
make = lambda n: {
  "x": jax.make_array_from_callback((8,), sharded, lambda i: np.arange(8.0, dtype=np.float32)[i] + n),
  "rng": jax.jit(lambda: jax.random.key(n), out_shardings=same)()}
c = Checkpoints(folder, keep=2)
for n in (1, 2, 3):
  c.save(n, make(n), data_state={"process": index, "long": "x" * index}, extra={"best": n})
c.wait()
from jax.experimental import multihost_utils
multihost_utils.sync_global_devices("saved")
if index == 0:
  (c.directory / "3" / "manifest.json").write_text("{")
multihost_utils.sync_global_devices("damaged")
r = c.restore(make(0))
assert r.step == 2 and r.data_state["process"] == index and r.extra == {"best": 2}, r
for shard, want in zip(r.state["x"].addressable_shards, make(2)["x"].addressable_shards):
  assert (np.asarray(shard.data) == np.asarray(want.data)).all()
c.save(3, r.state)
c.close()
try:
  c.restore(make(0), step=9)
  raise AssertionError("step 9 restored")
except ValueError as e:
  assert "does not exist" in str(e)
"""


@pytest.mark.slow
def test_two_processes_agree_on_the_step(tmp_path):
  port = child.free_port()
  child.together(*(["-c", PROCESS, str(tmp_path), port, str(i)] for i in range(2)))
  assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "3", "3.bad", "lock", "trash"]
  assert json.loads((tmp_path / "3" / "manifest.json").read_text())["step"] == 3
