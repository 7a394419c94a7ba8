"""The page about checkpoints: its code runs, and its table names every family."""

import io
import re
import shlex
import shutil
import sys

import pytest

import main
from interop import families, hf
from scripts import tokenize_text
from tests.interop.released import OWN
from tests.sources import ROOT

PAGE = (ROOT / "docs" / "checkpoints.md").read_text()


@pytest.mark.slow
def test_the_code_of_the_page_runs(tmp_path):
  (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
  code = code.replace("downloads/mamba-130m-hf", str(OWN / "gpt2"))
  code = code.replace('"mine"', f'"{tmp_path}/mine"').replace('"ours"', f'"{tmp_path}/ours"')
  names: dict = {}
  exec(compile(code, "checkpoints.md", "exec"), names)
  assert names["logits"].shape == (1, 5, 53)
  assert len(names["text"][0]) == 8
  assert {path.name for path in tmp_path.iterdir()} == {"mine", "ours"}


@pytest.mark.slow
def test_the_commands_of_the_page_run(tmp_path, monkeypatch, capsys):
  """Each line by its own entry point, on the tiny model and its tokenizer that the page offers."""
  pytest.importorskip("tokenizers")
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, "stdin", io.StringIO("abc\n"))
  shutil.copytree(OWN / "jamba", "downloads/mamba-130m-hf")
  (block,) = re.findall(r"^```\n(\./dev python -m interop\.hf .*?)```", PAGE, re.S | re.M)
  (tmp_path / "notes").mkdir()
  (tmp_path / "notes" / "a.txt").write_text("a note that says little " * 40)
  tokenize_text.opened.cache_clear()
  folder = "dir=tokens/notes,steps=200"
  small = "dir=tokens/notes,steps=2,warmup=1,batch=2,length=24,generate.tokens=0"
  commands = [shlex.split(line.replace(folder, small), comments=True) for line in block.splitlines()]
  for command in commands:
    match command:
      case ["./dev", "python", "-m", "interop.hf", *rest]:
        assert hf.main(rest) == 0, command
      case ["./dev", "tokenize", *rest]:
        assert tokenize_text.main([*rest, "--jobs", "1"]) == 0, command
      case ["./dev", "chat", folder]:
        assert main.main(["main.py", "--mode=chat", f"--workdir={folder}"]) == 0, command
      case ["./dev", "run", *rest]:
        assert main.main(["main.py", *rest]) == 0, command
      case _:
        raise AssertionError(f"{command} is not tried")
  assert len(commands) > 5
  assert "error" not in capsys.readouterr().err
  assert (tmp_path / "mine" / "tokenizer.json").exists()
  tokenize_text.opened.cache_clear()


def test_the_pages_agree_on_the_number_of_families():
  readme = (ROOT / "README.md").read_text()
  numbers = re.findall(r"(\d+) (?:families|model\s+types)", readme + PAGE)
  assert numbers
  assert set(map(int, numbers)) == {len(families.names())}


def test_the_table_names_every_family():
  table = re.findall(r"^\| `(\w+)`", PAGE, re.M)
  assert table == sorted(table)
  assert set(table) == set(families.names())
