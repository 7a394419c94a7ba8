"""Speech Commands: S5 has its authors' settings, and a model without time steps to stretch is refused 8 kHz."""

import pytest

from configs import speech_commands
from data.task import build_task
from hybrids.model import build_model
from training import optimizer, state


def test_s5_has_the_settings_of_its_authors():
  c = speech_commands.get_config("files=x.npz,khz8=y.npz")
  assert (c.model.body.letters.m.C_init, c.evaluators.khz8.data.gap) == ("lecun_normal", 2.0)
  assert c.model.body.branch.norm.to_dict() == {"name": "batch", "momentum": 0.95}
  task = build_task(**c.data)
  params = state.variables_shape(build_model(task, **c.model.to_dict()), task)["params"]
  o = c.optimizer
  rows = optimizer.assign(params, weight_decay=o.weight_decay, slow_lr=o.slow_lr, groups=o.groups)
  of = lambda name: next(row for path, row in rows.items() if path.endswith(f"mixer/{name}"))
  assert [of(name) for name in ("B_re", "C_re", "D", "log_dt")] == [(0.25, 0.0)] * 4
  assert of("gate/kernel") == (1.0, 0.04)


def test_s4_is_refused_8_khz():
  with pytest.raises(ValueError, match="khz8='y.npz' wants model=s5"):
    speech_commands.get_config("model=s4,files=x.npz,khz8=y.npz")


def test_ten_words_are_a_setting_away():
  assert speech_commands.get_config("labels=10,files=x.npz").data.labels == 10
