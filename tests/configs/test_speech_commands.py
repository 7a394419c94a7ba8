"""Speech Commands: S5 has its authors' settings, and every model reads 8 kHz by steps of twice the length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from configs import speech_commands
from data.task import build_task
from hybrids.model import build_model
from inference.evaluators import changed
from training import optimizer, state


def test_s5_has_the_settings_of_its_authors():
  c = speech_commands.get_config("files=x.npz,khz8=y.npz")
  assert c.model.body.letters.m.C_init == "lecun_normal"
  assert c.model.body.branch.norm.to_dict() == {"name": "batch", "momentum": 0.95}
  task = build_task(**c.data)
  params = state.variables_shape(build_model(task, **c.model.to_dict()), task)["params"]
  o = c.optimizer
  rows = optimizer.assign(params, weight_decay=o.weight_decay, slow_lr=o.slow_lr, groups=o.groups)
  of = lambda name: next(row for path, row in rows.items() if path.endswith(f"mixer/{name}"))
  assert [of(name) for name in ("B_re", "C_re", "D", "log_dt")] == [(0.25, 0.0)] * 4
  assert of("gate/kernel") == (1.0, 0.04)


@pytest.mark.parametrize("model", speech_commands.MODELS)
def test_8_khz_are_read_by_steps_of_twice_the_length(model):
  small = "width=8,depth=1,m.state=16" + (",m.blocks=2" if model == "s5" else "")
  c = speech_commands.get_config(f"model={model},files=x.npz,khz8=y.npz,{small}")
  task = build_task(**c.data)
  built = build_model(task, **c.model.to_dict())
  coarse = changed(built, c.evaluators.khz8.model.to_dict())
  letter = coarse.body["letters"]["m"]
  assert letter.get("mixer", letter)["step_rescale"] == 2.0
  assert built.body["letters"]["m"] != letter
  sound = jax.random.normal(jax.random.key(0), (2, 100, 1))
  variables = meta.unbox(built.init(jax.random.key(1), sound))
  fine, half = built.apply(variables, jnp.repeat(sound, 2, axis=1)), coarse.apply(variables, sound)
  # what is held for two samples has the same mean over time at either rate, but for the ends
  assert np.abs(half - fine).max() < 0.5 * np.abs(built.apply(variables, sound) - fine).max()


def test_ten_words_are_a_setting_away():
  assert speech_commands.get_config("labels=10,files=x.npz").data.labels == 10
