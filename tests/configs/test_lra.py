"""The Long Range Arena's models: every one reads both ways."""

import pytest

from configs import lra
from hybrids.mixer import build_spec


@pytest.mark.parametrize("name", lra.MODELS)
def test_every_mixer_sees_later_tokens(name):
  for task in lra.TASKS:
    c = lra.get_config(f"task={task},mixer={name}").model
    mixer = build_spec(c.body.letters.m.to_dict(), width=c.width, layer=0, depth=c.body.depth)
    assert mixer.STATE == "none", f"{name} on {task} has a state, so that a token sees the earlier ones alone"
