"""A published model by its name, counted or trained; `python main.py --list models` prints the names.

  python main.py --mode count --config configs/model.py:mamba_2.8b
  python main.py --mode count --config configs/model.py:jamba_v0.1,a.cache_dtype=bfloat16
  python main.py --config configs/model.py:mamba_130m,batch=4,length=512 --workdir runs/mamba_130m

A model of tokens reads text as bytes (`task` chooses bytes, text_file, tiny_shakespeare or noise), which are the first
256 tokens of its vocabulary; a classifier of images or other features reads noise of their shapes, as does SaShiMi,
whose rows cannot be packed (configs/sounds.py trains it on sound).
"""

from typing import Any

from ml_collections import ConfigDict

from configs import base, grammar, text
from hybrids.recipes import Recipe, get_recipe
from mistake import Mistake

DEFAULT = "mamba_130m"
# tokens of a row, where a recipe has been published for more
LONGEST = 2048
TEXTS: dict[str, dict[str, Any]] = {"bytes": {}, **text.SECTIONS}


def get_config(arg: str = "") -> ConfigDict:
  """`arg` begins with the name of a recipe; pairs after a comma change what that gives."""
  name, _, rest = (arg or DEFAULT).partition(",")
  if "=" in name:
    raise Mistake(f"configs/model.py:{name}: the name of a model comes first, as in configs/model.py:{DEFAULT},{name}")
  recipe = get_recipe(name)
  # texts are packed, and a U-net pools across the documents of a row
  reads_text = recipe.head == "lm" and recipe.model["body"].get("name") != "unet"
  tasks = {**TEXTS, "noise": {}} if reads_text else {"noise": {}}
  task, rest = grammar.take(rest, "task", tasks)
  c = base.defaults()
  c.data = ConfigDict(_data(recipe, task))
  c.model = ConfigDict(recipe.model)
  return base.parse(c, rest)


def _data(recipe: Recipe, task: str) -> dict[str, Any]:
  length = min(recipe.length, LONGEST) if recipe.head == "lm" else recipe.length
  if task in TEXTS:
    return base.text_section(name=task, length=length, vocab=recipe.vocab, **TEXTS[task])
  size, labels = recipe.vocab or recipe.features, recipe.classes or 0
  inputs = "tokens" if recipe.vocab else "features"
  return dict(name="noise", batch=8, length=length, seed=0, eval_rows=64, inputs=inputs, size=size, labels=labels)
