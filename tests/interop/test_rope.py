"""Rotary positions of configs in older and in today's form."""

import pytest

from interop.config import Config
from interop.rope import rope
from mistake import Mistake

YARN = dict(factor=4.0, original_max_position_embeddings=64, beta_fast=16, attention_factor=1.5)
MSCALE = dict(mscale=0.7, mscale_all_dim=0.4)
LLAMA3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
LONG = dict(short_factor=[1.0] * 4, long_factor=[2.0] * 4, original_max_position_embeddings=32)
CASES = {
  "older": (dict(rope_theta=5e3), dict(theta=5e3, rotary=1.0)),
  "today": (dict(rope_parameters=dict(rope_type="default", rope_theta=5e3)), dict(theta=5e3, rotary=1.0)),
  "partial": (dict(partial_rotary_factor=0.25), dict(theta=1e4, rotary=0.25)),
  "cut": (dict(rope_parameters=dict(partial_rotary_factor=0.3)), dict(theta=1e4, rotary=0.25)),
  "linear": (dict(rope_scaling=dict(type="linear", factor=2.0)), dict(scaling=dict(rule="linear", factor=2.0))),
  "dynamic": (
    dict(rope_scaling=dict(type="dynamic", factor=2.0), max_position_embeddings=64),
    dict(scaling=dict(rule="dynamic", factor=2.0, trained=64, length=64)),
  ),
  "llama3": (
    dict(rope_scaling=dict(rope_type="llama3", **LLAMA3)),
    dict(scaling=dict(rule="llama3", factor=8.0, low=1.0, high=4.0, trained=32)),
  ),
  "yarn": (
    dict(rope_parameters=dict(rope_type="yarn", rope_theta=1e6, **YARN)),
    dict(theta=1e6, scaling=dict(rule="yarn", factor=4.0, trained=64, fast=16, amplitude=1.5)),
  ),
  "yarn with mscale": (
    dict(rope_scaling=dict(type="yarn", factor=4.0, original_max_position_embeddings=64, **MSCALE)),
    dict(scaling=dict(rule="yarn", factor=4.0, trained=64, **MSCALE)),
  ),
  "yarn with one mscale, which transformers does not read": (
    dict(rope_scaling=dict(type="yarn", factor=4.0, original_max_position_embeddings=64, mscale=0.7)),
    dict(scaling=dict(rule="yarn", factor=4.0, trained=64)),
  ),
  "mrope": (
    dict(rope_scaling=dict(type="mrope", rope_type="default", mrope_section=[2, 1, 1], mrope_interleaved=True)),
    dict(theta=1e4, rotary=1.0),
  ),
  "older mrope": (dict(rope_scaling=dict(type="mrope", mrope_section=[2, 1, 1])), dict(theta=1e4, rotary=1.0)),
  "longrope": (
    dict(rope_scaling=dict(type="longrope", **LONG), max_position_embeddings=128),
    dict(scaling=dict(rule="longrope", divisors=[1.0] * 4, factor=4.0, trained=32)),
  ),
  "proportional": (
    dict(rope_parameters=dict(rope_type="proportional", partial_rotary_factor=0.5)),
    dict(scaling=dict(rule="proportional", share=0.5, factor=1.0)),
  ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_config_says_how_positions_turn(name):
  values, fields = CASES[name]
  config = Config(values, "config.json")
  assert rope(config, 8).items() >= (dict(position="rope") | fields).items()
  config.finish("")


@pytest.mark.parametrize(
  ("values", "message"),
  [
    (dict(rope_scaling=dict(type="spiral")), "rope_type='spiral' is not known here"),
    (dict(rope_scaling=dict(type="linear", factor=2.0, turns=3)), "keys that are not known here: {'turns': 3}"),
  ],
)
def test_other_rules_are_refused(values, message):
  with pytest.raises(Mistake, match=message):
    rope(Config(values, "config.json"), 8)
