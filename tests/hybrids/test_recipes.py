"""Recipes of published models: their parameters are counted exactly, from shapes alone."""

import re

import jax
import pytest

from hybrids import recipes, sections
from hybrids.mixer import frozen
from hybrids.model import Model, build_model
from inference.count import active, size
from tests import sources

PAGE = sources.ROOT / "docs" / "models.md"
# Recipe -> parameters: of published models as the page has them, exactly; and of the toy of each.
CELLS = [[cell.strip() for cell in line.split("|")] for line in PAGE.read_text().splitlines() if line.startswith("| ")]
PUBLISHED = {row[1]: int(row[2].replace(",", "")) for row in CELLS if row[1] != "recipe"}
TOY_COUNTS = """
  bailing_hybrid_toy 5738, bamba_toy 12156, based_toy 3904, falcon_h1_toy 5708, falcon_mamba_toy 5368,
  gated_delta_hybrid_toy 4608, glm5_toy 6308, gpt2_toy 3064, gpt_neox_toy 14784, granite_toy 3672, griffin_toy 3952,
  h3_toy 3936, hawk_toy 3416, hyena_dna_toy 2280, hyena_toy 3520, jamba_toy 5365, kimi_linear_toy 5618,
  lara_mini_toy 4088, lfm2_moe_toy 3168, lfm2_toy 3144, lfm3_toy 3728, llama_toy 5224, lra_toy 455,
  mamba2_toy 3224, mamba3_toy 3864, mamba_toy 3320, mambabyte_toy 3320, minimax_toy 5280, nemotron_h_toy 6836,
  nvidia_hybrid_toy 5976, olmo_hybrid_toy 5344, qwen3_5_toy 5600, qwen3_next_toy 5856, qwen4_exp_toy 6928,
  recurrentgemma_toy 3952, retnet_toy 3624, rwkv4_toy 5968, rwkv6_toy 6432, rwkv7_toy 6224, samba_toy 3544,
  sashimi_toy 15680, striped_hyena_toy 5360, titans_mac_toy 5150, titans_mag_toy 5022, titans_mal_toy 4990,
  vim_toy 1859, vmamba_toy 4667, xlstm_7b_toy 5312, xlstm_toy 5572, zamba2_toy 7832, zamba_toy 5728, zaya_toy 3682
"""
COUNTS = PUBLISHED | {name: int(count) for name, count in map(str.split, TOY_COUNTS.split(","))}
EVERYDAY = ("gpt2", "llama_7b", "mamba_2.8b", "mamba2_2.7b")
TOYS = recipes.names(toys=True)


def build(recipe):
  given = {size: getattr(recipe, size) for size in Model.FROM_TASK}
  return Model(**{key: frozen(value) for key, value in recipe.model.items()}, **given)


def shapes(model, recipe):
  inputs = model.example(1, 1 if model.reads_pieces else recipe.length)["inputs"]
  return jax.eval_shape(model.init, jax.random.key(0), inputs)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in EVERYDAY)) for n in COUNTS])
def test_parameters_are_those_published(name):
  recipe = recipes.get_recipe(name)
  params = shapes(build(recipe), recipe)["params"]
  count = size(params)
  assert count == COUNTS[name]
  if recipe.parameters:
    assert abs(count - recipe.parameters) <= recipe.within * recipe.parameters
  if recipe.active:
    # what is published may leave the tables of the embedding and of the logits out
    tables = size(params["embed"]) + size(params.get("head", {}))
    assert min(abs(active(params) - less - recipe.active) for less in (0, tables)) < 0.1 * recipe.active
  elif "'moe'" in str(recipe.model):
    # transformers counts all experts; nobody has published how many of them a token passes
    assert active(params) < count or name.endswith("_toy")
  else:
    assert active(params) == count


def test_every_recipe_is_on_the_page_and_says_where_it_is_from():
  assert set(COUNTS) == {*recipes.names(), *TOYS}
  assert all("arXiv" in recipes.source(name) for name in recipes.names())


@pytest.mark.parametrize("name", TOYS)
def test_sections_name_fields_that_there_are(name):
  full = sections.complete(recipes.get_recipe(name).model)
  assert sections.complete(full) == full


@pytest.mark.parametrize(
  ("name", "said"),
  [
    ("mamba_9b", "of this family there are mamba_130m, mamba_370m"),
    ("Mamba_2.8B", "of this family there are mamba_130m, mamba_370m"),
    ("mamba", "of this family there are mamba_130m, mamba_370m"),
    ("gpt2_huge", "there are gpt2, gpt2_medium"),
    ("gtp2", r"did you mean 'gpt2'.*--list models names all"),
  ],
)
def test_a_size_that_does_not_exist_is_answered_by_those_that_do(name, said):
  with pytest.raises(ValueError, match=said):
    recipes.get_recipe(name)


@pytest.mark.slow
def test_the_pages_code_builds_what_it_says():
  blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
  names = [{}, {}, {}]
  for block, into in zip(blocks, names, strict=True):
    exec(block, into)
  jamba = names[1]["model"]
  assert size(shapes(jamba, recipes.get_recipe("jamba_v0.1"))["params"]) == COUNTS["jamba_v0.1"]
  (own,) = names[2]["RECIPES"].values()
  assert size(shapes(build_model(own, **own.model), own)["params"]) > 0
