"""Recipes of published models: their parameters are counted exactly, from shapes alone."""

import re

import jax
import pytest

from hybrids import recipes, sections
from hybrids.mixer import frozen
from hybrids.model import Model
from inference.count import active, size
from tests import sources

# Recipe -> parameters. Where the published number is exact the two are equal.
COUNTS = {
  "bailing_hybrid_124b": 124_414_191_072,
  "bailing_hybrid_toy": 5_738,
  "bamba_9b": 9_780_235_392,
  "bamba_toy": 12_156,
  "based_360m": 362_655_744,
  "based_1.3b": 1_349_531_904,
  "based_toy": 3_904,
  "falcon_h1_0.5b": 521_411_104,
  "falcon_h1_1.5b": 1_554_785_664,
  "falcon_h1_1.5b_deep": 1_554_770_832,
  "falcon_h1_3b": 3_149_256_192,
  "falcon_h1_7b": 7_585_513_568,
  "falcon_h1_34b": 33_642_221_312,
  "falcon_h1_toy": 5_708,
  "falcon_mamba_7b": 7_272_665_088,
  "falcon_mamba_toy": 5_368,
  "gated_delta_0.4b": 516_837_830,
  "gated_delta_hybrid_0.4b_h1": 530_764_908,
  "gated_delta_hybrid_1.3b_h1": 1_316_608_290,
  "gated_delta_hybrid_1.3b": 1_370_040_060,
  "gated_delta_hybrid_toy": 4_608,
  "granite_4_h_micro": 3_191_396_096,
  "granite_4_h_tiny": 6_939_037_248,
  "granite_4_h_small": 32_207_337_984,
  "granite_toy": 3_672,
  "hawk_1b": 1_369_761_792,
  "hawk_3b": 3_094_760_448,
  "hawk_7b": 7_307_497_472,
  "hawk_toy": 3_416,
  "griffin_1b": 1_308_477_440,
  "griffin_3b": 2_932_952_064,
  "griffin_7b": 6_921_254_912,
  "griffin_14b": 13_927_781_376,
  "griffin_toy": 3_952,
  "recurrentgemma_2b": 2_682_862_080,
  "recurrentgemma_9b": 8_579_977_216,
  "recurrentgemma_toy": 3_952,
  "h3_125m": 125_071_104,
  "h3_355m": 357_548_032,
  "h3_1.3b": 1_319_075_840,
  "h3_2.7b": 2_658_882_560,
  "h3_hybrid_125m": 124_953_408,
  "h3_hybrid_355m": 357_234_176,
  "h3_hybrid_1.3b": 1_318_448_128,
  "h3_hybrid_2.7b": 2_657_705_600,
  "h3_toy": 3_936,
  "hyena_153m": 152_483_904,
  "hyena_toy": 3_520,
  "hyena_dna_tiny-1k": 436_096,
  "hyena_dna_small-32k": 3_277_568,
  "hyena_dna_medium-160k": 6_550_528,
  "hyena_dna_medium-450k": 6_550_528,
  "hyena_dna_large-1m": 6_550_528,
  "hyena_dna_toy": 2_280,
  "jamba_v0.1": 51_570_323_328,
  "jamba_1.5_mini": 51_570_323_328,
  "jamba_1.5_large": 398_555_145_696,
  "jamba_toy": 5_365,
  "kimi_linear_48b": 49_122_675_072,
  "kimi_linear_toy": 5_618,
  "lara_mini_7b": 7_281_684_672,
  "lara_mini_toy": 4_088,
  "lfm2_350m": 354_483_968,
  "lfm2_700m": 742_489_344,
  "lfm2_1.2b": 1_170_340_608,
  "lfm2_2.6b": 2_569_272_320,
  "lfm2_8b_a1b": 8_339_929_856,
  "lfm3_1.7b": 1_728_801_536,
  "lfm3_toy": 3_728,
  "lfm2_toy": 3_144,
  "lfm2_moe_toy": 3_168,
  "lra_s4_listops": 809_042,
  "lra_s4_text": 868_426,
  "lra_s4_image": 3_368_074,
  "lra_s4d_listops": 809_018,
  "lra_s4d_image": 3_367_690,
  "lra_s5_listops": 188_362,
  "lra_s5_text": 1_352_386,
  "lra_s5_image": 5_134_730,
  "lra_lru_listops": 1_062_922,
  "lra_mega_listops": 534_538,
  "lra_transformer_listops": 8_418_314,
  "lra_transformer_text": 3_221_506,
  "lra_toy": 455,
  "mamba_130m": 129_135_360,
  "mamba_370m": 371_516_416,
  "mamba_790m": 793_204_224,
  "mamba_1.4b": 1_372_178_432,
  "mamba_2.8b": 2_768_345_600,
  "mamba_toy": 3_320,
  "mamba2_130m": 128_989_632,
  "mamba2_370m": 368_346_624,
  "mamba2_780m": 780_161_280,
  "mamba2_1.3b": 1_343_757_312,
  "mamba2_2.7b": 2_702_599_680,
  "mamba2_toy": 3_224,
  "mamba3_180m": 186_849_600,
  "mamba3_440m": 443_015_680,
  "mamba3_880m": 892_782_336,
  "mamba3_1.5b": 1_494_723_584,
  "mamba3_toy": 3_864,
  "mambabyte_353m": 353_628_160,
  "mambabyte_972m": 973_387_520,
  "mambabyte_toy": 3_320,
  "minimax_text_01": 456_089_655_296,
  "minimax_toy": 5_280,
  "nvidia_hybrid_800m": 907_127_680,
  "nvidia_hybrid_8b": 8_654_517_248,
  "nvidia_hybrid_toy": 5_976,
  "nemotron_h_8b": 8_100_852_736,
  "nemotron_h_toy": 6_836,
  "olmo_hybrid_7b": 7_430_870_688,
  "olmo_hybrid_toy": 5_344,
  "qwen3_next_80b": 79_674_391_296,
  "qwen3_next_toy": 5_856,
  "qwen3_5_9b": 8_953_803_264,
  "qwen3_5_35b": 34_660_610_688,
  "qwen3_5_toy": 5_600,
  "retnet_1.3b": 1_310_986_240,
  "retnet_2.7b": 2_645_406_720,
  "retnet_6.7b": 6_648_569_856,
  "retnet_toy": 3_624,
  "rwkv4_169m": 169_342_464,
  "rwkv4_430m": 430_397_440,
  "rwkv4_1.5b": 1_515_106_304,
  "rwkv4_3b": 2_984_627_200,
  "rwkv4_7b": 7_392_649_216,
  "rwkv4_14b": 14_148_597_760,
  "rwkv4_toy": 5_968,
  "rwkv6_1.6b": 1_599_873_024,
  "rwkv6_3b": 3_099_863_040,
  "rwkv6_7b": 7_635_746_816,
  "rwkv6_toy": 6_432,
  "rwkv7_0.1b": 191_084_544,
  "rwkv7_0.4b": 450_834_432,
  "rwkv7_1.5b": 1_527_668_736,
  "rwkv7_2.9b": 2_948_065_280,
  "rwkv7_toy": 6_224,
  "samba_421m": 421_793_280,
  "samba_1.3b": 1_330_207_488,
  "samba_toy": 3_544,
  "sashimi_8_layers": 5_216_832,
  "sashimi_toy": 15_680,
  "striped_hyena_7b": 7_646_023_680,
  "evo_7b": 6_452_781_056,
  "striped_hyena_toy": 5_360,
  "titans_mac_170m": 172_217_118,
  "titans_mac_toy": 5_150,
  "titans_mag_170m": 166_318_878,
  "titans_mag_toy": 5_022,
  "titans_mal_170m": 166_303_518,
  "titans_mal_toy": 4_990,
  "gpt2": 124_439_808,
  "gpt2_medium": 354_823_168,
  "gpt2_large": 774_030_080,
  "gpt2_xl": 1_557_611_200,
  "gpt2_toy": 3_064,
  "pythia_160m": 162_322_944,
  "pythia_410m": 405_334_016,
  "pythia_1b": 1_011_781_632,
  "pythia_1.4b": 1_414_647_808,
  "pythia_2.8b": 2_775_208_960,
  "pythia_6.9b": 6_857_302_016,
  "pythia_12b": 11_846_072_320,
  "gpt_neox_20b": 20_554_567_680,
  "gpt_neox_toy": 14_784,
  "llama_7b": 6_738_415_616,
  "llama_13b": 13_015_864_320,
  "llama_toy": 5_224,
  "vim_t": 7_147_816,
  "vim_s": 25_796_200,
  "vim_b": 97_597_672,
  "vim_toy": 1_859,
  "vmamba_t": 30_249_064,
  "vmamba_s": 50_147_752,
  "vmamba_b": 88_557_800,
  "vmamba_toy": 4_667,
  "xlstm_7b": 6_865_424_896,
  "xlstm_7b_toy": 5_312,
  "xlstm_400m_1to0": 409_340_288,
  "xlstm_400m_7to1": 409_672_016,
  "xlstm_toy": 5_572,
  "zamba_7b": 7_232_490_496,
  "zamba_toy": 5_728,
  "zamba2_2.7b": 2_662_214_560,
  "zamba2_toy": 7_832,
  "zaya1_8b": 8_840_489_040,
  "zaya_toy": 3_682,
}
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


def test_every_recipe_is_counted_and_says_where_it_is_from():
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
    ("mamba", "of this family there are mamba_130m, mamba_370m"),
    ("gpt2_huge", "there are gpt2, gpt2_medium"),
    ("gtp2", r"did you mean 'gpt2'.*choose from .*mamba_130m"),
  ],
)
def test_a_size_that_does_not_exist_is_answered_by_those_that_do(name, said):
  with pytest.raises(ValueError, match=said):
    recipes.get_recipe(name)


PAGE = sources.ROOT / "docs" / "models.md"


def test_the_page_lists_every_recipe_with_its_number():
  rows = [line.split("|") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
  listed = {row[1].strip(): int(row[2].replace(",", "")) for row in rows if row[1].strip() != "recipe"}
  assert listed == {name: count for name, count in COUNTS.items() if name not in TOYS}


@pytest.mark.slow
def test_the_pages_code_builds_what_it_says():
  blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
  names = [{}, {}]
  for block, into in zip(blocks, names, strict=True):
    exec(block, into)
  jamba = names[1]["model"]
  assert size(shapes(jamba, recipes.get_recipe("jamba_v0.1"))["params"]) == COUNTS["jamba_v0.1"]
