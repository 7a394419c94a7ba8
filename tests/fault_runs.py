"""Small runs to be damaged, in this process or in one of their own; see tests/faults.py."""

import contextlib
import io
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

import main as program
from training.run import Run

ROOT = Path(__file__).parents[1]
TEXT = "the state space of a scan is the space of states that a scan has seen. " * 60
SIZES = "mixer=softmax,width=8,depth=1,length=16,batch=2,warmup=1,log_every=2,eval.every=2,generate.tokens=0"


def command(folder: Path, *more: str, steps: int = 4, sizes: str = "") -> list[str]:
  text = folder / "text.txt"
  if not text.exists():
    text.write_text(TEXT)
  config = f"--config=configs/text.py:files={text},{SIZES},steps={steps},save.every=2{sizes}"
  return ["main.py", config, f"--workdir={folder / 'run'}", *more]


def run(folder: Path, *more: str, **settings) -> tuple[int, str]:
  """The exit code and the last line of standard error of a command in this process."""
  error = io.StringIO()
  with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
    code = program.main(command(folder, *more, **settings))
  return code, error.getvalue().strip()


def trained(folder: Path, **settings) -> Path:
  code, error = run(folder, **settings)
  assert code == 0, error
  return folder / "run"


def refused(folder: Path, *words: str, more: tuple[str, ...] = (), **settings) -> None:
  """The same command ends in one line with code 2, and changes no file."""
  read = lambda: {path: path.read_bytes() for path in sorted((folder / "run").rglob("*")) if path.is_file()}
  before = read()
  code, error = run(folder, *more, **settings)
  assert code == program.MISTAKE, (code, error)
  assert len(error.splitlines()) == 1, error
  assert all(word in error for word in words), error
  assert read() == before


def params(workdir: Path) -> list[np.ndarray]:
  return [np.asarray(leaf) for leaf in jax.tree.leaves(Run.open(workdir).variables)]


def equal(left: list[np.ndarray], right: list[np.ndarray]) -> bool:
  return len(left) == len(right) and all(map(np.array_equal, left, right))


def data_files(step: Path) -> list[Path]:
  return sorted((path for path in (step / "state").rglob("*") if path.is_file()), key=lambda p: -p.stat().st_size)


def flip(step: Path) -> None:
  raw = bytearray(data_files(step)[0].read_bytes())
  raw[len(raw) // 2] ^= 1
  data_files(step)[0].write_bytes(raw)


def started(folder: Path, *more: str, limit: int = 0, **settings):
  """A run in a process of its own."""
  return begun(command(folder, *more, **settings), limit=limit)


@contextlib.contextmanager
def begun(arguments: list[str], *, limit: int = 0):
  """A process of its own, in which no file may grow beyond `limit` bytes: a full disk that needs no root."""

  def prepare() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

  if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # started in the background by a shell; the process would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
  environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}
  if limit:
    # a cache of half-written programs would outlive the fault
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
  process = subprocess.Popen(
    [sys.executable, *arguments],
    cwd=ROOT,
    env=environment,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    preexec_fn=prepare if limit else None,
  )
  try:
    yield process
  finally:
    process.kill()
    process.wait()


@contextlib.contextmanager
def several(
  folder: Path,
  *more: str,
  count: int = 2,
  own: Mapping[int, tuple[str, ...]] = types.MappingProxyType({}),
  limits: Mapping[int, int] = types.MappingProxyType({}),
  **settings,
):
  """The processes of one run; `own` has arguments of single ones, `limits` the room for files of single ones."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    where = f"--coordinator=localhost:{free.getsockname()[1]}"
  all_of_them = [where, f"--processes={count}", "--patience=10", *more]
  with contextlib.ExitStack() as stack:
    yield [
      stack.enter_context(
        started(folder, *all_of_them, f"--process={i}", *own.get(i, ()), limit=limits.get(i, 0), **settings)
      )
      for i in range(count)
    ]


def ends(process: subprocess.Popen, code: int) -> str:
  out, _ = process.communicate(timeout=300)
  assert process.returncode == code, (process.returncode, out[-3000:])
  assert "Traceback" not in out, out[-3000:]
  return out


def saved(folder: Path) -> int:
  """The last step that the run in the folder has saved."""
  journal = folder / "run" / "run.json"
  return json.loads(journal.read_text())["saved"] if journal.exists() else 0


def wait_for_save(folder: Path, process: subprocess.Popen, *, after: int = 0) -> None:
  end = time.monotonic() + 300
  while saved(folder) <= after:
    assert process.poll() is None, process.communicate()[0][-3000:]
    assert time.monotonic() < end, "nothing was saved"
    time.sleep(0.05)


def wait_for(path: Path, process: subprocess.Popen) -> None:
  end = time.monotonic() + 300
  while not path.exists():
    assert process.poll() is None, process.communicate()[0][-3000:]
    assert time.monotonic() < end, f"{path} did not appear"
    time.sleep(0.01)
