"""./dev: its verbs run this checkout's code, from any folder, also in an environment that another checkout made."""

import os
import shutil
import subprocess
import sys

import pytest

from tests import sources

# stands in for the environment's Python: where and with what it was started
PYTHON = '#!/bin/sh\ncase $1 in -c) echo 3.11.7 ;; *) printf "%s\\n" "$PWD" "$PYTHONPATH" "$@" ;; esac\n'

# stands in for a Python that can make environments: it notes that it was asked, and takes its time
MAKER = """#!/bin/sh
case "$1 $2" in
  *version_info*) echo 3.11.7 ;;
  *fcntl*) exec {python} "$@" ;;
  "-m venv") echo venv >> {log}; sleep 0.5; mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
  "-m pip") case $* in *" uv") exit 1 ;; esac ;;
esac
"""


@pytest.fixture
def place(tmp_path):
  """Two checkouts, an environment that the first has made, and a folder of the user's."""
  for folder in ("one", "two", "env/bin", "mine"):
    (tmp_path / folder).mkdir(parents=True)
  for checkout in ("one", "two"):
    shutil.copy(sources.ROOT / "dev", tmp_path / checkout)
    for name in ("requirements.lock", "pyproject.toml"):
      (tmp_path / checkout / name).write_text(name)
  python = tmp_path / "env" / "bin" / "python"
  python.write_text(PYTHON)
  python.chmod(0o755)
  checksum = subprocess.run(["cksum"], input=b"requirements.lockpyproject.toml", capture_output=True, check=True)
  (tmp_path / "env" / ".stamp").write_text(f"3.11.7 {checksum.stdout.decode().strip()} \n")
  (tmp_path / "mine" / "test_x.py").touch()
  return tmp_path


def dev(place, checkout, *arguments, **environment):
  variables = {"PATH": os.environ["PATH"], "VENV": "../env", "PYTHON": str(place / "env/bin/python")} | environment
  command = [place / checkout / "dev", *arguments]
  done = subprocess.run(command, cwd=place / "mine", env=variables, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  folder, path, *rest = done.stdout.splitlines()
  return folder, path.split(":"), rest


@pytest.mark.parametrize(
  "verb,program",
  [
    ("run", "main.py"),
    ("sweep", "scripts/start.py sweep"),
    ("report", "scripts/start.py report"),
    ("look", "scripts/start.py look_inside"),
    ("bench", "scripts/start.py bench"),
    ("launch", "scripts/start.py launch.main"),
  ],
)
def test_a_verb_runs_a_program_of_its_own_checkout_in_the_folder_of_the_caller(place, verb, program):
  program, *script = program.split()
  assert (sources.ROOT / program).is_file()
  assert all((sources.ROOT / "scripts" / f"{name.replace('.', '/')}.py").is_file() for name in script)
  for checkout in ("one", "two"):
    folder, path, arguments = dev(place, checkout, verb, "--workdir", "runs/a b", "*")
    assert folder == str(place / "mine")
    assert path == [str(place / checkout)]
    assert arguments == [str(place / checkout / program), *script, "--workdir", "runs/a b", "*"]


def test_the_checkout_comes_before_other_paths(place):
  _, path, arguments = dev(place, "two", "python", "-m", "jupyter", PYTHONPATH="/else:/where")
  assert path == [str(place / "two"), "/else", "/where"]
  assert arguments == ["-m", "jupyter"]


def test_tests_run_in_the_checkout_and_are_named_from_the_folder_of_the_caller(place):
  mine = place / "mine"
  folder, _, arguments = dev(place, "one", "test", "test_x.py::test_it[a b]", "-k", "some thing", "/abs")
  assert folder == str(place / "one")
  assert arguments == ["-m", "pytest", f"{mine}/test_x.py::test_it[a b]", "-k", "some thing", "/abs"]
  assert dev(place, "one", "test")[2] == ["-m", "pytest"]


def test_extras_stay_until_others_are_named(place):
  maker, log = place / "maker", place / "log"
  maker.write_text(MAKER.format(python=sys.executable, log=log))
  maker.chmod(0o755)
  variables = {"PATH": os.environ["PATH"], "VENV": str(place / "new"), "PYTHON": str(maker)}

  def said(**extras):
    done = subprocess.run(
      [place / "one" / "dev", "setup"], env=variables | extras, capture_output=True, text=True, check=True
    )
    return done.stderr

  assert "setting up" in said(EXTRAS="gpu")
  assert said() == ""
  assert said(EXTRAS="gpu") == ""
  assert "setting up" in said(EXTRAS="")
  assert said() == ""


def test_of_many_that_need_an_environment_at_once_one_makes_it(place):
  maker, log = place / "maker", place / "log"
  maker.write_text(MAKER.format(python=sys.executable, log=log))
  maker.chmod(0o755)
  variables = {"PATH": os.environ["PATH"], "VENV": str(place / "deep" / "er"), "PYTHON": str(maker)}
  command = [place / "one" / "dev", "setup"]
  started = [subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True) for _ in range(3)]
  said = "".join(process.communicate(timeout=30)[1] for process in started)
  assert [process.returncode for process in started] == [0, 0, 0], said
  assert log.read_text() == "venv\n"
  assert said.count("dev: setting up") == 1
  assert said.count("another process is setting up") == 2


def test_an_unknown_verb_lists_them_all():
  done = subprocess.run([sources.ROOT / "dev", "rnu"], capture_output=True, text=True)
  assert done.returncode == 2
  for verb in ("run", "test", "sweep", "report", "look", "bench", "lint", "setup", "python"):
    assert f"./dev {verb} " in done.stdout
