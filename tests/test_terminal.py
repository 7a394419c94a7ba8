"""A run's output, on terminals that cannot show it and before readers that go away."""

import subprocess
import sys

import pytest

from tests import sources

SETTLED = "import sys; import terminal; terminal.settle(); "
SHOUT = "[print('a line …', file=s, flush=True) for s in (sys.stdout, sys.stderr) for _ in range(9999)]; sys.exit(7)"


def run(code: str, reader: str, **environment: str) -> tuple[list[int], bytes]:
  variables = "".join(f"{name}={value} " for name, value in environment.items())
  command = f'{variables}{sys.executable} -c "{SETTLED}{code}" 2>&1 | {reader}; echo ${{PIPESTATUS[*]}} >&2'
  done = subprocess.run(["bash", "-c", command], cwd=sources.ROOT, capture_output=True)
  return [int(code) for code in done.stderr.split()], done.stdout


def test_a_program_outlives_its_reader():
  codes, shown = run(SHOUT, "head -1")
  assert codes == [7, 0]
  assert shown.decode() == "a line …\n"


def test_a_program_outlives_a_full_disk_and_knows_of_it():
  code = f"{SETTLED}print('a line', flush=True); print('more'); sys.exit(terminal.lost())"
  with open("/dev/full", "w") as full:
    done = subprocess.run([sys.executable, "-c", code], cwd=sources.ROOT, stdout=full, stderr=subprocess.PIPE)
  assert (done.returncode, done.stderr) == (1, b"No space left on device\n")


def test_bytes_of_the_input_that_are_no_text_are_kept():
  code = f"{SETTLED}print(ascii(sys.stdin.readline()))"
  done = subprocess.run([sys.executable, "-c", code], cwd=sources.ROOT, input=b"a\xff\n", capture_output=True)
  assert done.stdout == b"'a\\udcff\\n'\n"


@pytest.mark.parametrize("encoding,expected", [("ascii", b"a line ?\n"), ("utf-8", "a line …\n".encode())])
def test_what_a_terminal_cannot_show_is_a_question_mark(encoding, expected):
  codes, shown = run("from rich.console import Console; Console().print('a line …')", "cat", PYTHONIOENCODING=encoding)
  assert (codes, shown) == ([0, 0], expected)


def test_a_run_says_what_its_layers_are_and_ends_well_though_nobody_reads(tmp_path):
  sizes = "steps=2,warmup=0,batch=2,length=16,tokens=2,eval_rows=2,cpu_devices=1,eval.every=0"
  config = f"configs/copying.py:mixer=lru,mlp=2,width=8,depth=4,{sizes}"
  command = (
    f"{sys.executable} main.py --config {config} --workdir {tmp_path / 'x'} 2>&1 | head -1; echo ${{PIPESTATUS[*]}}"
  )
  done = subprocess.run(["bash", "-c", command], cwd=sources.ROOT, capture_output=True, text=True)
  first, codes = done.stdout.splitlines()
  assert codes == "0 0"
  assert "depth 4: 2 lru, 2 mlp" in first
  assert (tmp_path / "x" / "summary.json").exists()
