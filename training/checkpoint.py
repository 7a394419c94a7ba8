"""Checkpoints: written in the background by Orbax, verified by us before anything is restored from them.

What Orbax does: asynchronous writing of sharded arrays, a temporary folder renamed once complete, restoring under
another sharding. What is added here: a manifest after every commit and its check on restore, falling back to the newest
step that is intact; damaged steps are renamed and unfinished ones moved away, never deleted, so their numbers are free
again; a save that Orbax would skip silently is an error; a state of another structure, shape or dtype is refused by
name.

    DIR/300/state/…  data/…  extra/…  layout/…  manifest.json
    DIR/400.bad      a step that did not match its manifest
    DIR/trash/…      saves that were interrupted
    DIR/lock         held by the run that saves here; two at once would take each other's unfinished saves for debris
"""

import base64
import errno
import fcntl
import json
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from mistake import Mistake
from training import manifest

# names become folder names: a fixed set, never made from data
STATE, DATA, EXTRA, LAYOUT = "state", "data", "extra", "layout"
TEMPORARY = ".orbax-checkpoint-tmp"


class Restored(NamedTuple):
  """What `save` was given, and the step it was given for."""

  step: int
  state: Any
  data_state: Any
  extra: dict[str, Any]


class Checkpoints:
  """The checkpoints of one run. Every method is called by all processes, in the same order.

  Attributes:
    directory: local or shared file system, the same for all processes.
    keep: how many of the newest steps stay; older ones are deleted once a newer one is complete. None keeps all.
    read_only: looks, but moves and writes nothing; for evaluating a run that may still be training.
  Raises:
    ValueError: `keep` below 1, or a directory that is a URL.
  """

  def __init__(self, directory: str | Path, *, keep: int | None = None, read_only: bool = False):
    if "://" in str(directory):
      raise Mistake(f"checkpoints: directory {str(directory)!r} is a URL; give a folder of a mounted file system")
    if keep is not None and keep < 1:
      raise Mistake(f"checkpoints: keep={keep}; give a number of at least 1, or None to keep all")
    self.directory = Path(directory).absolute()
    self.keep = keep
    self.read_only = read_only
    self._manager: ocp.CheckpointManager | None = None
    self._thread: threading.Thread | None = None
    self._error: BaseException | None = None
    self._lock: IO[str] | None = None
    if not read_only and jax.process_index() == 0:
      self.directory.mkdir(parents=True, exist_ok=True)

  def steps(self) -> list[int]:
    """The steps there are, oldest first, unverified."""
    if not self.directory.is_dir():
      return []
    return sorted(int(p.name) for p in self.directory.iterdir() if p.name.isdecimal() and p.is_dir())

  def save(self, step: int, state: Any, *, data_state: Any = None, extra: Mapping[str, Any] | None = None) -> None:
    """Copies `state` to the host, then writes it in the background; waits first for the save before this one.

    Args:
      state: any pytree of jax arrays and PRNG keys. Its buffers may be donated as soon as this returns.
      data_state: bytes or JSON, this process's own; all processes' are stored.
      extra: JSON; process 0's is stored.
    Raises:
      ValueError: a leaf of `state` is not a jax array.
      Mistake: the step would not be saved, since it or a later one exists.
    """
    assert not self.read_only, "these checkpoints were opened read only"
    self.wait()
    leaves = _by_path(state)
    layout = {k: _describe(k, x) | _impl(x) for k, x in leaves.items()}
    items = {
      STATE: ocp.args.StandardSave({k: _data(x) for k, x in leaves.items() if x.size}),
      DATA: ocp.args.JsonSave({"processes": _gather(_encode(data_state))}),
      EXTRA: ocp.args.JsonSave(dict(extra or {})),
      LAYOUT: ocp.args.JsonSave(layout),
    }
    manager = self._open()
    if not manager.save(step, args=ocp.args.Composite(**items)):
      raise Mistake(
        f"checkpoint {step} was due but not saved: {self.directory} has steps {self.steps()}, and only later ones can "
        "be added. Restore the newest step first, or give another workdir"
      )
    self._thread = threading.Thread(target=self._finish, args=(manager, step), name=f"manifest-{step}")
    self._thread.start()

  def _finish(self, manager: ocp.CheckpointManager, step: int) -> None:
    try:
      # returns after Orbax's own barrier: by then every process has written its part
      manager.wait_until_finished()
      if jax.process_index() == 0:
        manifest.write(self.directory / str(step), step)
        self._prune()
    except BaseException as e:  # a thread's errors are raised by the next wait
      self._error = e

  def _prune(self) -> None:
    if self.keep is None:
      return
    complete = [n for n in self.steps() if (self.directory / str(n) / manifest.NAME).is_file()]
    for n in complete[: -self.keep]:
      # renamed first: a run killed here must not leave half a step under its number
      shutil.rmtree(_move(self.directory / str(n), self.directory / "trash" / f"{n}.old"))

  def wait(self) -> None:
    """Returns when the last save is complete, manifest included.

    Raises:
      Mistake: it failed; the steps before it are as they were.
    """
    if self._thread is not None:
      self._thread.join()
      self._thread = None
    if self._error is not None:
      error, self._error = self._error, None
      raise Mistake(f"saving a checkpoint to {self.directory} failed: {error}") from error

  def restore(self, like: Any, step: int | None = None) -> Restored | None:
    """The newest step that matches its manifest, or `step`; None where there is none at all.

    Args:
      like: the state's structure, as arrays or ShapeDtypeStructs; each leaf is restored under its leaf's sharding.
    Raises:
      ValueError: `step` is missing or damaged; another run saves here; or what was saved differs from `like` in
      structure, shape or dtype.
    """
    self.wait()
    chosen = _broadcast(lambda: self._choose(step))
    if chosen["error"]:
      raise Mistake(chosen["error"])
    if chosen["step"] is None:
      return None
    manager = self._open()
    manager.reload()
    step = int(chosen["step"])
    small = {n: ocp.args.JsonRestore() for n in (DATA, EXTRA, LAYOUT)}
    read = manager.restore(step, args=ocp.args.Composite(**small))
    leaves = _by_path(like)
    _check(f"{self.directory}/{step}", read[LAYOUT], {k: _describe(k, x) for k, x in leaves.items()})
    want = {k: _data_struct(x) for k, x in leaves.items() if x.size}
    arrays = manager.restore(step, args=ocp.args.Composite(**{STATE: ocp.args.StandardRestore(want)}))[STATE]
    rebuilt = [_rebuild(x, arrays.get(k), read[LAYOUT][k]) for k, x in leaves.items()]
    state = jax.tree.unflatten(jax.tree.structure(like), rebuilt)
    return Restored(step, state, _decode(self.directory, read[DATA]["processes"]), read[EXTRA])

  def _choose(self, step: int | None) -> dict[str, Any]:
    if step is not None:
      have = self.steps()
      reason = "it does not exist" if step not in have else manifest.why_bad(self.directory / str(step), step)
      message = f"checkpoint {step} in {self.directory} cannot be used: {reason}; steps there are {have}"
      return {"step": step, "error": message if reason else None}
    if not self.read_only:
      if not self._hold():
        held = f"{self.directory} is in use by another run; wait until it ends, or use another workdir"
        return {"step": None, "error": held}
      self._move_unfinished()
    for n in reversed(self.steps()):
      folder = self.directory / str(n)
      reason = manifest.why_bad(folder, n)
      if reason is None:
        return {"step": n, "error": None}
      done = "It is skipped" if self.read_only else f"It is now {_move(folder, folder.with_name(f'{n}.bad')).name}"
      logging.warning(
        "checkpoint %s is damaged: %s. %s, nothing was deleted; trying the step before.", folder, reason, done
      )
    return {"step": None, "error": None}

  def _hold(self) -> bool:
    if self._lock is None:
      lock = open(self.directory / "lock", "w")  # noqa: SIM115, it lives as long as this object
      try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except OSError as e:
        # some network file systems know no locks; there it is up to the user
        if e.errno in (errno.EWOULDBLOCK, errno.EACCES):
          lock.close()
          return False
      self._lock = lock
    return True

  def _move_unfinished(self) -> None:
    for path in sorted(self.directory.glob(f"*{TEMPORARY}*")):
      target = _move(path, self.directory / "trash" / path.name)
      logging.warning("checkpoint %s was not finished when its run ended; it is now in %s.", path.name, target)

  def close(self) -> None:
    """Waits for the last save, frees Orbax's threads and lets other runs save here.

    Call it however the run ends: a save that is still being written when Python shuts down is lost.
    """
    self.wait()
    if self._manager is not None:
      self._manager.close()
      self._manager = None
    if self._lock is not None:
      self._lock.close()
      self._lock = None

  def _open(self) -> ocp.CheckpointManager:
    # made late, since it reads the folder once: damaged steps have been renamed by then
    if self._manager is None:
      options = ocp.CheckpointManagerOptions(create=False, save_root_metadata=False)
      self._manager = ocp.CheckpointManager(self.directory, options=options)
    return self._manager


def _move(path: Path, target: Path) -> Path:
  """Renames to `target`, or to `target.1`, `target.2` … where that exists."""
  target.parent.mkdir(exist_ok=True)
  name, i = target.name, 0
  while target.exists():
    i += 1
    target = target.with_name(f"{name}.{i}")
  return path.rename(target)


def _by_path(state: Any) -> dict[str, Any]:
  pairs = jax.tree_util.tree_flatten_with_path(state)[0]
  leaves = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in pairs}
  assert len(leaves) == len(pairs), "two leaves of the state have the same path"
  return leaves


def _is_key(x: Any) -> bool:
  return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _describe(path: str, x: Any) -> dict[str, Any]:
  if not isinstance(x, (jax.Array, jax.ShapeDtypeStruct)):
    raise Mistake(f"state leaf {path!r} is {x!r} of type {type(x).__name__}; make it a jax array")
  return {"shape": list(x.shape), "dtype": str(x.dtype)}


def _data(x: jax.Array) -> jax.Array:
  return jax.random.key_data(x) if _is_key(x) else x


def _data_struct(x: Any) -> jax.ShapeDtypeStruct:
  sharding = x.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  plain = jax.eval_shape(_data, jax.ShapeDtypeStruct(x.shape, x.dtype))
  return jax.ShapeDtypeStruct(plain.shape, plain.dtype, sharding=sharding)


def _impl(x: jax.Array) -> dict[str, Any]:
  return {"impl": str(jax.random.key_impl(x))} if _is_key(x) else {}


def _rebuild(like: Any, data: jax.Array | None, layout: Mapping[str, Any]) -> jax.Array:
  if data is None:  # Orbax cannot store arrays without elements
    return jax.numpy.zeros(like.shape, like.dtype)
  return jax.random.wrap_key_data(data, impl=layout["impl"]) if _is_key(like) else data


def _check(folder: str, saved: Mapping[str, dict], wanted: Mapping[str, dict]) -> None:
  show = lambda entry: f"{entry['dtype']}{entry['shape']}" if entry else "nothing"
  for path in [*wanted, *saved]:
    old, new = saved.get(path), wanted.get(path)
    if not old or not new or (old["shape"], old["dtype"]) != (new["shape"], new["dtype"]):
      raise Mistake(
        f"checkpoint {folder} does not fit: {path!r} is {show(old)} there and {show(new)} in this run. Use the "
        "settings the run was started with (config.json), or another workdir"
      )


def _encode(data_state: Any) -> str:
  if isinstance(data_state, bytes):
    return json.dumps({"base64": base64.b64encode(data_state).decode()})
  return json.dumps({"json": data_state}, sort_keys=True)


def _decode(directory: Path, texts: list[str]) -> Any:
  if len(texts) != jax.process_count() and len(set(texts)) > 1:
    raise Mistake(
      f"the data positions in {directory} are those of {len(texts)} processes and differ, this run has "
      f"{jax.process_count()}; resume with {len(texts)} processes"
    )
  value = json.loads(texts[jax.process_index() if len(texts) == jax.process_count() else 0])
  return base64.b64decode(value["base64"]) if "base64" in value else value["json"]


def _gather(text: str) -> list[str]:
  """Every process's text, in order of process."""
  if jax.process_count() == 1:
    return [text]
  raw = np.frombuffer(text.encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.asarray([raw.size], np.int32)).reshape(-1)
  rows = multihost_utils.process_allgather(np.pad(raw, (0, int(sizes.max()) - raw.size)))
  return [bytes(np.asarray(row, np.uint8)[:n]).decode() for row, n in zip(rows, sizes)]


def _broadcast(choose: Any) -> dict[str, Any]:
  """What `choose` returns (JSON) on process 0, on every process; an exception there ends the others too."""
  if jax.process_count() == 1:
    return choose()
  value: dict[str, Any] = {}
  if jax.process_index() == 0:
    try:
      value = choose()
    except Exception as e:  # the others wait for a word from here
      value = {"step": None, "error": f"{type(e).__name__}: {e}"}
  return json.loads(_gather(json.dumps(value))[0])
