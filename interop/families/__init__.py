"""One file for each family of released models, named like the `model_type` in its config.json.

A family's file holds facts, no code for single tensors:

  LETTERS        how many letters of our pattern one of their layers is: 1 for Mamba, 2 for attention and an MLP; where
                 layers differ in that, a function numbers(config) returns their layer of each letter instead
  IGNORED        keys of config.json, between blanks, that do not change what the model computes, or that transformers
                 itself ignores
  SKIPPED        regular expressions of tensors that hold nothing the model needs, such as a table that is tied
  vocab(config)  if there is one: the rows of the table, where `vocab_size` does not say them
  RENAMED        if there is one: pairs of a regular expression and what takes its place in the names of tensors, for
                 files that were written with other names; what is saved has today's
  constants(config)  if there is one: tensors of integers, by name, that follow from the config; a file may lack them,
                 and what is saved has them
  sections(config) -> the model section, made by the family's recipe in hybrids/recipes/
  rows(config) -> the mapping table, see interop/rows.py

Both functions ask an `interop.config.Config` for what they want; keys that neither asks for and IGNORED does not name
are an error. `config.expect(key, value, …)` asks for a key whose other values are not known here.
"""

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mistake import Mistake, hint

# model types that another family's file serves
ALIASES: dict[str, str] = {
  "lfm2_moe": "lfm2",
  "qwen3_5_moe_text": "qwen3_5_text",
  "qwen4_exp_text": "qwen4_exp",
  "rwkv7_fla": "rwkv7",
}


def names() -> list[str]:
  """Returns all model types that can be read."""
  files = [path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_")]
  return sorted([*files, *ALIASES])


def model_type(values: Mapping[str, Any]) -> Any:
  """Returns the model type of a config.json, which that of state-spaces/mamba does not name."""
  ours = "model_type" not in values and {"d_model", "n_layer", "ssm_cfg"} <= values.keys()
  return "mamba_ssm" if ours else values.get("model_type")


def find(model_type: Any, where: str) -> Any:
  """Returns the module of a model type.

  Raises:
    Mistake: there is none.
  """
  if model_type not in names():
    raise Mistake(
      f"{where}: model_type={model_type!r} is no family known here{hint(str(model_type), names())}; there are "
      f"{', '.join(names())}"
    )
  return importlib.import_module(f"{__name__}.{ALIASES.get(model_type, model_type)}")


def skipped(family: Any, name: str) -> bool:
  """Returns whether a tensor holds nothing that the family's models need."""
  return any(re.fullmatch(pattern, name) for pattern in family.SKIPPED)
