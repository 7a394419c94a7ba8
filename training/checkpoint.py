"""Checkpoints: written in the background by Orbax, verified by us before anything is restored from them.

Orbax writes sharded arrays in the background, renames a temporary folder once it is complete, and restores under
another sharding. This module adds a manifest after every commit and checks it on restore, falling back to the newest
step that is intact. It renames damaged steps and moves unfinished ones away, so that their numbers are free again, and
keeps the last few of them. A save that Orbax would skip silently is an error; a state of another structure, shape or
dtype is refused by name, and so is a step that another run has saved.

    DIR/300/state/…  data/…  extra/…  layout/…  manifest.json
    DIR/400.bad      a step that did not match its manifest
    DIR/trash/…      saves that were interrupted, and steps that a run went back from
    DIR/lock         held by the run that saves here; two at once would take each other's unfinished saves for debris
"""

import base64
import contextlib
import errno
import fcntl
import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
from absl import logging as absl_logging

from mistake import Mistake
from training import late_errors, leaves, manifest, peers, processes

# names become folder names: a fixed set, never made from data
STATE, DATA, EXTRA, LAYOUT = "state", "data", "extra", "layout"
TEMPORARY = ".orbax-checkpoint-tmp"
# damaged steps, and entries of the trash, that stay to be looked at
DEBRIS = 3
# times that a reader looks for the newest step, while the run that saves here deletes old ones
TRIES = 10
# seconds after which one who waits for a save looks whether it has failed
WAKE = 0.2


class Restored(NamedTuple):
  """A restored checkpoint: its step, and the arguments that `save` stored for it."""

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
    run: identity of the run, which its manifests carry; steps of another one are refused. Empty takes any.
    stay: steps that stay besides the newest ones.
    saved: called on process 0 with each step whose save is complete.
  Raises:
    ValueError: `keep` below 1, or a directory that is a URL.
  """

  def __init__(
    self,
    directory: str | Path,
    *,
    keep: int | None = None,
    read_only: bool = False,
    run: str = "",
    saved: Callable[[int], None] = lambda step: None,
  ):
    if "://" in str(directory):
      raise Mistake(f"checkpoints: directory {str(directory)!r} is a URL; give a folder of a mounted file system")
    if keep is not None and keep < 1:
      raise Mistake(f"checkpoints: keep={keep}; give a number of at least 1, or None to keep all")
    self.directory = Path(directory).absolute()
    self.keep = keep
    self.read_only = read_only
    self.run = run
    self.stay: set[int] = set()
    self._saved = saved
    self._manager: Any = None
    self._thread: threading.Thread | None = None
    self._error: BaseException | None = None
    self._is_stuck = False
    self._lock: IO[str] | None = None
    if self.directory.is_symlink():
      raise Mistake(
        f"{self.directory} is a link, which a run does not follow; make it a folder, or link the whole workdir"
      )
    if not read_only and jax.process_index() == 0:
      self.directory.mkdir(parents=True, exist_ok=True)

  def steps(self) -> list[int]:
    """Returns the numbers of all saved steps, oldest first, without checking their files."""
    if not self.directory.is_dir():
      return []
    return sorted(int(p.name) for p in self.directory.iterdir() if _is_number(p.name) and p.is_dir())

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
    ocp, arrays = _orbax(), leaves.by_path(state)
    layout = {k: leaves.describe(k, x) | leaves.impl(x) for k, x in arrays.items()}
    items = {
      STATE: ocp.args.StandardSave({k: leaves.data(x) for k, x in arrays.items() if x.size}),
      DATA: ocp.args.JsonSave({"processes": processes.gather(_encode(data_state))}),
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

  def _finish(self, manager: Any, step: int) -> None:
    try:
      # returns after Orbax's own barrier: by then every process has written its part
      manager.wait_until_finished()
      if jax.process_index() == 0:
        manifest.write(self.directory / str(step), step, self.run)
        self._saved(step)
        self._prune()
    except BaseException as e:  # a thread's errors are raised by the next wait
      self._error = e

  def _fail(self, error: BaseException) -> None:
    self._error = self._error or error

  def _prune(self) -> None:
    if self.keep is None:
      return
    complete = [n for n in self.steps() if (self.directory / str(n) / manifest.NAME).is_file()]
    for n in (n for n in complete[: -self.keep] if n not in self.stay):
      # renamed first: a run killed here must not leave half a step under its number
      shutil.rmtree(_move(self.directory / str(n), self.directory / "trash" / f"{n}.old"))

  def wait(self) -> None:
    """Returns when the last save is complete, manifest included.

    Raises:
      Mistake: it failed; the steps before it are as they were.
    """
    while self._thread is not None and not self._is_stuck:
      self._thread.join(WAKE)
      if not self._thread.is_alive():
        self._thread = None
      elif self._error is not None:
        # at Orbax's barrier, to which the other processes do not come
        self._is_stuck = True
    if self._error is not None:
      error, self._error = self._error, None
      if isinstance(error, TimeoutError):
        peers.end_if_lost(error)
      reason = " ".join(str(error).split()) or type(error).__name__
      # the cause is at the end of the text, which may be a long chain of errors
      reason = reason if len(reason) < 300 else f"{reason[:120]} … {reason[-170:]}"
      raise Mistake(f"saving a checkpoint to {self.directory} failed: {reason}") from error

  def restore(self, like: Any, step: int | None = None, *, subset: bool = False) -> Restored | None:
    """Restores the newest step that matches its manifest, or `step`; returns None where nothing was saved.

    Args:
      subset: `like` may lack leaves that were saved.
      like: the state's structure, as arrays or ShapeDtypeStructs; each leaf is restored under its leaf's sharding.
    Raises:
      ValueError: `step` is missing or damaged; another run saves here; or what was saved differs from `like` in
      structure, shape or dtype.
    """
    self.wait()
    if not self.read_only:
      self.hold()
    for _ in range(TRIES):
      before = self.steps()
      chosen = processes.from_first(lambda: self._choose(step))
      try:
        if chosen is not None:
          return self._restore(like, chosen, subset)
        if not self.read_only or self.steps() == before:
          return None
      except Exception as error:
        if not self.read_only or (self.directory / str(chosen)).is_dir():
          raise
        if step is not None:
          raise Mistake(f"checkpoint {step} in {self.directory} was deleted while it was read; give a newer") from error
      # the run that saves here has deleted it meanwhile, and has a newer one
    return None

  def _restore(self, like: Any, step: int, subset: bool) -> Restored:
    ocp = _orbax()
    small = {n: ocp.args.JsonRestore() for n in (DATA, EXTRA, LAYOUT)}
    manager = self._open()
    manager.reload()
    read = manager.restore(step, args=ocp.args.Composite(**small))
    wanted = leaves.by_path(like)
    leaves.check_version(f"{self.directory}/{step}", read[LAYOUT], wanted)
    saved = {k: x for k, x in read[LAYOUT].items() if k in wanted or not subset}
    leaves.check(f"{self.directory}/{step}", saved, {k: leaves.describe(k, x) for k, x in wanted.items()})
    arrays = self.arrays(step, {k: leaves.data_struct(x) for k, x in wanted.items() if x.size})
    rebuilt = [leaves.rebuild(x, arrays.get(k), read[LAYOUT][k]) for k, x in wanted.items()]
    state = jax.tree.unflatten(jax.tree.structure(like), rebuilt)
    return Restored(step, state, None if subset else _decode(self.directory, read[DATA]["processes"]), read[EXTRA])

  def layout(self, step: int | None = None) -> tuple[int, dict[str, dict[str, Any]]]:
    """Returns an intact step, the newest by default, and the shape and dtype of every leaf that it holds.

    Raises:
      Mistake: there is none.
    """
    step = processes.from_first(lambda: self._choose(step))
    if step is None:
      raise Mistake(f"{self.directory} holds no checkpoint to use")
    args = _orbax().args
    return step, self._open().restore(step, args=args.Composite(**{LAYOUT: args.JsonRestore()}))[LAYOUT]

  def arrays(self, step: int, wanted: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """Restores some leaves of a step by their paths, each under its sharding."""
    ocp = _orbax()
    restore_args = ocp.checkpoint_utils.construct_restore_args(dict(wanted))
    args = ocp.args.PyTreeRestore(dict(wanted), restore_args=restore_args, partial_restore=True)
    with ocp.PyTreeCheckpointer() as reader:
      return reader.restore(self.directory / str(step) / STATE, args=args)

  def verify(self, step: int) -> None:
    """Waits for the last save, and checks that `step` is there as it was written.

    Raises:
      Mistake: it is not.
    """
    self.wait()
    processes.from_first(lambda: self._check_step(step))

  def rewind(self, step: int) -> None:
    """Moves all steps after an intact one to the trash, so that a run goes on from it.

    Raises:
      Mistake: it is missing or damaged.
    """

    def move() -> None:
      self._check_step(step)
      for later in (n for n in self.steps() if n > step):
        _move(self.directory / str(later), self.directory / "trash" / f"{later}.undone")

    self.wait()
    processes.from_first(move)

  def _check_step(self, step: int) -> None:
    have = self.steps()
    reason = "it does not exist" if step not in have else manifest.why_bad(self.directory / str(step), step)
    if reason:
      raise Mistake(f"checkpoint {step} in {self.directory} cannot be used: {reason}; steps there are {have}")
    self._check_run(step)

  def _check_run(self, step: int) -> None:
    other = manifest.run_of(self.directory / str(step))
    if self.run and other and other != self.run:
      raise Mistake(
        f"checkpoint {step} in {self.directory} is of another run ({other[:8]}, this one is {self.run[:8]}); move it "
        "away, or start from its weights with init_from"
      )

  def _choose(self, step: int | None) -> int | None:
    if step is not None:
      self._check_step(step)
      return step
    steps = self.steps()
    for n in reversed(steps):
      folder = self.directory / str(n)
      reason = manifest.why_bad(folder, n)
      if reason is None:
        self._check_run(n)
        return n
      done = "It is skipped" if self.read_only else f"It is now {_move(folder, folder.with_name(f'{n}.bad')).name}"
      absl_logging.warning(
        "checkpoint %s is damaged: %s. %s, nothing was deleted; trying the step before.", folder, reason, done
      )
    return None

  def hold(self) -> None:
    """Locks the folder for this run, moves unfinished saves away and deletes old debris.

    Raises:
      Mistake: another run has it, or a file stands where a step belongs.
    """
    processes.from_first(self._hold)

  def _hold(self) -> None:
    if self._lock is not None:
      return
    # neither followed nor emptied if it is a link
    lock = os.fdopen(os.open(self.directory / "lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644), "w")
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
      # some network file systems know no locks; there it is up to the user
      if e.errno in (errno.EWOULDBLOCK, errno.EACCES):
        lock.close()
        raise Mistake(
          f"{self.directory} is in use by another run; wait until it ends, or use another workdir"
        ) from None
    self._lock = lock
    for path in self.directory.iterdir():
      if _is_number(path.name) and not path.is_dir():
        raise Mistake(f"{path} is a file where a checkpoint's folder belongs; move it away")
    self._move_unfinished()
    self._bound_debris()

  def _bound_debris(self) -> None:
    by_age = lambda path: path.lstat().st_mtime
    for paths in (self.directory.glob("*.bad*"), (self.directory / "trash").glob("*")):
      for path in sorted(paths, key=by_age)[:-DEBRIS]:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

  def _move_unfinished(self) -> None:
    for path in sorted(self.directory.glob(f"*{TEMPORARY}*")):
      target = _move(path, self.directory / "trash" / path.name)
      absl_logging.warning("checkpoint %s was not finished when its run ended; it is now in %s.", path.name, target)

  def close(self) -> None:
    """Waits for the last save, frees Orbax's threads and lets other runs save here.

    Call it however the run ends: a save that is still being written when Python shuts down is lost.
    """
    try:
      self.wait()
    finally:
      if self._manager is not None and not self._is_stuck:
        # `wait` has raised the error of a failed save already, and it would be raised again here
        with contextlib.suppress(Exception):
          self._manager.close()
        self._manager = None
      if self._lock is not None:
        self._lock.close()
        self._lock = None

  def _open(self) -> Any:
    # made late, since it reads the folder once: damaged steps have been renamed by then
    if self._manager is None:
      late_errors.hush(self._fail if jax.process_count() > 1 else None)
      ocp = _orbax()
      options = ocp.CheckpointManagerOptions(create=False, save_root_metadata=False)
      self._manager = ocp.CheckpointManager(self.directory, options=options)
    return self._manager


def _orbax() -> Any:
  # it takes a fifth of a second to import, and what neither trains nor restores does without
  import orbax.checkpoint

  return orbax.checkpoint


def _is_number(name: str) -> bool:
  """Returns whether a name is one that Orbax gives to a step: other scripts have digits, too."""
  return name.isascii() and name.isdecimal() and str(int(name)) == name


def _move(path: Path, target: Path) -> Path:
  """Renames to `target`, or to `target.1`, `target.2` … where that exists."""
  target.parent.mkdir(exist_ok=True)
  name, i = target.name, 0
  while target.exists():
    i += 1
    target = target.with_name(f"{name}.{i}")
  return path.rename(target)


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
