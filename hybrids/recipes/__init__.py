"""Published models as recipes: the sections of a model as functions of its hyper-parameters, and tables of sizes.

  recipe = get_recipe("mamba_2.8b")
  model = build_model(recipe, **recipe.model)     # hybrids.model; the recipe stands in for a task of its vocabulary
  mamba.model(width=64, depth=4, state=8)         # other sizes of the same family

Each file holds the functions of a family and RECIPES, a table from FAMILY_SIZE to `Recipe`. The size "toy" is small
enough to train a step in a moment.
"""

import functools
import importlib
import pkgutil

from hybrids.recipes.recipe import Recipe
from mistake import Mistake, near

__all__ = ["Recipe", "get_recipe", "names", "source"]

TOY = "toy"


def names(*, toys: bool = False) -> list[str]:
  """Returns the names of all published sizes, family by family; with `toys`, those of the toy sizes instead."""
  return [name for name in _files() if name.endswith("_" + TOY) == toys]


def get_recipe(name: str) -> Recipe:
  """Returns the recipe of a name such as "mamba_130m", FAMILY_SIZE.

  Raises:
    ValueError: there is no such family, or no such size of it; the message lists those that there are.
  """
  files = _files()
  if name in files:
    return importlib.import_module(files[name]).RECIPES[name]
  raise Mistake(f"no recipe is called {name!r}{siblings(name) or near(name, files, 'models')}")


def siblings(name: str) -> str:
  """Returns '; of this family there are …' for a size that a family does not have, otherwise nothing."""
  family = [other for other in _files() if other.split("_")[0] == name.lower().split("_")[0]]
  return f"; of this family there are {', '.join(family)}" if family else ""


def source(name: str) -> str:
  """Returns the paper and the release that a recipe's numbers are from: the last paragraph of its file's docstring."""
  text = importlib.import_module(_files()[name]).__doc__ or ""
  return " ".join(text.strip().split("\n\n")[-1].split()).removeprefix("Source: ")


@functools.cache
def _files() -> dict[str, str]:
  """Maps the name of each recipe to the module that holds it."""
  modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
  return {name: module.__name__ for module in modules for name in getattr(module, "RECIPES", ())}
