"""Configs as publishers wrote them: every key is known, and the model is that of the recipe."""

import pytest

from hybrids import recipes
from inference.count import size
from interop import families, plan
from interop.config import Config
from tests.hybrids.test_recipes import COUNTS
from tests.interop.published_configs import PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_all_keys_of_a_published_config_are_known(name):
  kind, values = PUBLISHED[name]
  family, config = families.find(kind, name), Config({"model_type": kind, **values}, name)
  section, rows = family.sections(config), family.rows(config)
  assert config.get("vocab_size") == recipes.get_recipe(name).vocab
  config.finish(family.IGNORED)
  assert section["width"] == recipes.get_recipe(name).model["width"]
  assert rows


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_model_of_a_published_config_has_the_recipes_parameters(name):
  kind, values = PUBLISHED[name]
  made = plan.make({"model_type": kind, **values}, name, "float32")
  assert size({key: leaf for key, leaf in made.shapes.items() if key.startswith("params:")}) == COUNTS[name]
