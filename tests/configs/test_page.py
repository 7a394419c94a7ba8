"""The page about configs: the config that it shows is one, and its sweep's settings are taken."""

import re

from data.task import build_task
from tests.sources import ROOT


def test_the_config_of_the_page_is_one():
  (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "configs.md").read_text(), re.S)
  names: dict = {}
  exec(compile(code, "configs.md", "exec"), names)
  settings = list(names["get_sweep"]())
  assert len(settings) == 6
  config = names["get_config"](",".join(f"{key}={value}" for key, value in settings[-1].items()))
  assert config.model.body.letters.m.name == "s5"
  assert (config.seed, config.data.seed, config.steps) == (2, 2, 2000)
  assert build_task(**config.data.to_dict()).length == 64
