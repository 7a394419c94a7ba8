"""A signal ends a program in one line and leaves nothing half-written; what kill -9 leaves goes with the next file."""

import ast
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ending
from tests import sources

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGUSR1: 138}
WRITES = """
import sys, time
from pathlib import Path
import ending
ending.on_signals()
with ending.unfinished(Path(sys.argv[1])) as partial:
  partial.mkdir() if sys.argv[1].endswith("folder") else None
  (partial / "a" if partial.is_dir() else partial).write_text("half")
  print("ready", flush=True)
  time.sleep(600)
"""
SHARES = """
import sys, time
from pathlib import Path
import ending
from scripts.workers import spread

def write(path):
  with ending.unfinished(path) as partial:
    partial.write_text("half")
    time.sleep(600)

if __name__ == "__main__":
  ending.on_signals()
  list(spread(write, [Path(sys.argv[1], name) for name in "ab"], 2))
"""


def started(*arguments) -> subprocess.Popen:
  command = [sys.executable, *map(str, arguments)]
  # a test in the background of a shell would hand on that Ctrl-C is ignored
  return subprocess.Popen(
    command,
    cwd=sources.ROOT,
    env=os.environ | {"PYTHONPATH": str(sources.ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    start_new_session=True,
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
  )


def ended(process: subprocess.Popen) -> str:
  try:
    return process.communicate(timeout=120)[0]
  finally:
    process.kill()


def catches(process: subprocess.Popen, number: int) -> bool:
  """Whether the process has a handler of its own for a signal."""
  status = Path(f"/proc/{process.pid}/status").read_text()
  return bool(int(re.search(r"SigCgt:\t(\w+)", status)[1], 16) >> (number - 1) & 1)


def wait_until(happened) -> None:
  end = time.monotonic() + 120
  while not happened():
    assert time.monotonic() < end
    time.sleep(0.02)


@pytest.mark.parametrize("number", CODES)
def test_a_signal_leaves_one_line_and_no_file(tmp_path, number):
  if signal.getsignal(number) == signal.SIG_IGN:
    pytest.skip(f"{signal.Signals(number).name} is ignored here, as nohup has it, and so by programs")
  path = tmp_path / ("folder" if number == signal.SIGHUP else "file")
  process = started("-c", WRITES, path)
  assert process.stdout.readline() == "ready\n"
  process.send_signal(number)
  assert ended(process) == f"stopped by {signal.Signals(number).name}; nothing half-written is left\n"
  assert process.returncode == CODES[number]
  assert not list(tmp_path.iterdir())


def test_a_signal_ends_a_program_that_cannot_say_so(tmp_path):
  with open("/dev/full", "w") as full:
    command = [sys.executable, "-c", WRITES, str(tmp_path / "file")]
    process = subprocess.Popen(command, cwd=sources.ROOT, stdout=subprocess.PIPE, stderr=full, text=True)
  assert process.stdout.readline() == "ready\n"
  process.send_signal(signal.SIGTERM)
  ended(process)
  assert process.returncode == 143
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_file_does_not_get_the_number_of_a_closed_stream(tmp_path, closed):
  """Or what a library prints to number 2 would be in a checkpoint."""
  path = tmp_path / "file"
  code = (
    f"import ending, os, sys; ending.begin(); file = open({str(path)!r}, 'w'); print(file.fileno() > 2, file=file); "
    "print(sys.stdin.isatty(), os.write(1, b'x'), os.write(2, b'x'), file=sys.stdout); sys.stderr.flush()"
  )
  command = f'{sys.executable} -c "{code}" {closed}'
  assert subprocess.run(["bash", "-c", command], cwd=sources.ROOT, capture_output=True).returncode == 0
  assert path.read_text() == "True\n"


def test_what_killed_processes_left_is_deleted_and_nothing_else(tmp_path):
  killed, living = (started("-c", WRITES, tmp_path / name) for name in ("folder", "file"))
  for process in (killed, living):
    assert process.stdout.readline() == "ready\n"
  killed.kill()
  killed.wait()
  of_another_machine = tmp_path / f".file.elsewhere.{killed.pid}.0.partial"
  of_another_machine.touch()
  left = set(tmp_path.iterdir())
  assert len(left) == 3
  with ending.unfinished(tmp_path / "other") as partial:
    partial.write_text("whole")
  gone = left - set(tmp_path.iterdir())
  assert [path.name.split(".")[1] for path in gone] == ["folder"]
  assert (tmp_path / "other").read_text() == "whole"
  living.kill()
  living.wait()


def test_ctrl_c_ends_the_processes_of_a_pool(tmp_path):
  script = tmp_path / "script.py"
  script.write_text(SHARES)
  folder = tmp_path / "out"
  folder.mkdir()
  process = started(script, folder)
  wait_until(lambda: len(list(folder.iterdir())) == 2)
  # as a terminal does, to all of them
  os.killpg(process.pid, signal.SIGINT)
  assert ended(process) == "stopped by SIGINT; nothing half-written is left\n"
  assert process.returncode == 130
  assert not list(folder.iterdir())


@pytest.mark.parametrize("name", ["file", "x" * 255, "ä" * 127])
def test_a_file_appears_when_its_block_ends_well(tmp_path, name):
  path = tmp_path / name
  path.symlink_to("elsewhere")
  with contextlib.suppress(ZeroDivisionError), ending.unfinished(path) as partial:
    partial.write_text("half")
    _ = 1 / 0
  assert list(tmp_path.iterdir()) == [path]
  assert path.is_symlink()
  with ending.unfinished(path) as partial:
    partial.write_text("whole")
  assert list(tmp_path.iterdir()) == [path]
  assert not path.is_symlink()


@pytest.mark.parametrize("name", ["a.safetensors", "folder"])
@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_what_a_library_made_for_its_owner_alone_gets_the_mode_of_the_umask(tmp_path, name, umask):
  before = os.umask(umask)
  try:
    with ending.unfinished(tmp_path / name) as partial:
      partial.mkdir() if name == "folder" else None
      file = partial / "inner" if name == "folder" else partial
      os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
  finally:
    os.umask(before)
  (made,) = (path for path in tmp_path.rglob("*") if path.is_file())
  assert made.stat().st_mode & 0o777 == 0o666 & ~umask
  assert len(list(tmp_path.iterdir())) == 1


def scripts() -> list[str]:
  """The scripts that ./dev starts."""
  lines = re.findall(r"^  (\S+)\) start \"\$root/scripts/start.py\" (\S+)", (sources.ROOT / "dev").read_text(), re.M)
  return sorted(name for verbs, script in lines for name in (verbs.split("|") if "command" in script else [script]))


def modules() -> list[str]:
  """The modules that users start by themselves."""
  pages = [sources.ROOT / "README.md", *(sources.ROOT / "docs").glob("*.md")]
  found = {name for page in pages for name in re.findall(r"python -m ((?:data|interop)\.\w+)", page.read_text())}
  return sorted(found)


@pytest.mark.parametrize("name", [*scripts(), *modules()])
def test_a_signal_ends_a_script_while_it_imports(name):
  if name in scripts():
    tree = ast.parse((sources.ROOT / "scripts" / f"{name.replace('.', '/')}.py").read_text())
    assert [node.args.args for node in tree.body if getattr(node, "name", "") == "main"], "start.py calls it"
  process = started(*(["scripts/start.py"] if name in scripts() else ["-m"]), name, "--help")
  wait_until(lambda: catches(process, signal.SIGUSR1))
  process.send_signal(signal.SIGINT)
  assert ended(process) == "stopped by SIGINT; nothing half-written is left\n"
  assert process.returncode == 130


def test_every_script_of_dev_goes_through_start():
  assert len(scripts()) >= 10
  assert len(modules()) >= 3
  assert set(re.findall(r"scripts/(\w+)", (sources.ROOT / "dev").read_text())) == {"start"}
