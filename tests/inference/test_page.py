"""The page about generation, run as a user would."""

import re

import pytest

from tests import sources
from training.run import Run

PAGE = sources.ROOT / "docs" / "inference.md"


@pytest.mark.slow
def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = f"{sources.ROOT}/configs/bytes.py:mixer=mamba,width=8,depth=1,length=16,batch=2,steps=1,warmup=0"
  assert Run.from_config(f"{config},eval.batches=1", workdir="runs/bytes").train() == "done"
  names: dict = {}
  for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S):
    exec(compile(block, str(PAGE), "exec"), names)
  assert [row["prompt"] for row in names["rows"]] == ["def "] * 2 + ["class "] * 2
  assert [row.tolist() for row in names["prompts"]] == [[100, 101, 102], [99]]
  assert names["more"].tokens.shape == (2, 20)
  assert names["fast"].lengths.tolist() == [12, 12]
  assert names["beams"].scores.shape == (2, 4)
  assert (
    names["tomorrow"].rows()
    == names["generate"](
      names["model"], names["variables"], None, max_new_tokens=20, context=names["out"].context
    ).rows()
  )
