"""The page about Python, run as a user would."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "python.md"


def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
  code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
  # a first run in a folder, small and short
  short = "width=8,depth=1,length=16,batch=2,steps=2,warmup=1,eval.batches=1"
  first = code[0].replace("width=32,depth=1,length=64,steps=20,warmup=2", short)
  first = first.replace('warmup=1,eval.batches=1")', f'warmup=1,eval.batches=1", workdir="{tmp_path}")')
  first = first.replace('"runs/mamba"', f'"{tmp_path}"')
  names: dict = {}
  for block in (first, *code[1:]):
    exec(compile(block, str(PAGE), "exec"), names)
  assert names["logits"].shape == (2, 16, 256)
  assert names["y"].shape == (2, 32)
  assert (tmp_path / "checkpoints" / "2").is_dir()
