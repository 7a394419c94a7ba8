"""The config that a folder holds."""

import json
import math

from configs import base
from hybrids import sections
from training import describe, settings, workdir


def test_stored_tuples_come_back_as_tuples(tmp_path):
  data = {"lengths": (64, 256), "stages": ((0, 64, 4), (300, 256, 1))}
  config = settings.load({"steps": 1, "data": data, "model": base.defaults().model, "optimizer": {"groups": ()}})
  (tmp_path / workdir.CONFIG).write_text(config.to_json())
  assert workdir.get_config(str(tmp_path)).to_dict() == config.to_dict()


def test_numbers_that_json_lacks_are_null(tmp_path):
  workdir.write_json(tmp_path / "eval.json", {"loss": math.nan, "all": [{"x": math.inf}, (1.5, "nan")]})
  assert json.loads((tmp_path / "eval.json").read_text()) == {"loss": None, "all": [{"x": None}, [1.5, "nan"]]}


def test_a_stored_run_of_every_mixer_is_the_run_that_was_started(tmp_path):
  for name in describe.kinds()["mixers"]:
    config = settings.load("configs/bytes.py")
    with config.unlocked():
      config.model = sections.complete({"body": {"name": "stack", "pattern": "m", "letters": {"m": {"name": name}}}})
    workdir.write_json(tmp_path / workdir.CONFIG, workdir.plain(config))
    assert workdir.get_config(str(tmp_path)).to_dict() == config.to_dict()
    assert not workdir.changes(tmp_path, config, {}), name
