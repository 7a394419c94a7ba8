"""The page about checkpoints: its code runs, and its table names every family."""

import re

import pytest

from interop import families
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


def test_the_table_names_every_family():
  table = re.findall(r"^\| `(\w+)`", PAGE, re.M)
  assert table == sorted(table)
  assert set(table) == set(families.names())
