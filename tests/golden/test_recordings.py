"""Every recording says what was run to get it."""

import json

import numpy as np
import pytest

from scripts.golden import record
from scripts.golden.recipe import FOLDER


@pytest.mark.parametrize("name", sorted(record.NUMBERS))
def test_recordings_say_where_they_come_from(name):
  with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
    about = json.loads(str(file["about"]))
  recipe = record.NUMBERS[name]
  assert about["repository"] == recipe.repository
  assert about["executed"] == {file: list(names) for file, names in recipe.files.items()}
  assert about["patched"] == dict(recipe.patches)
  assert len(about["commit"]) == 40 if recipe.files else about["versions"][recipe.library]


def test_every_recording_has_a_recipe():
  assert {file.stem for file in FOLDER.glob("*.npz")} == set(record.NUMBERS)


def test_the_table_names_every_recording():
  rows = (FOLDER.parents[1] / "scripts" / "golden" / "README.md").read_text().splitlines()
  table = {row.split("`")[1]: [cell.strip() for cell in row.split("|")[2:4]] for row in rows if row.startswith("| `")}
  assert table.keys() == record.NUMBERS.keys()
  for name, (repository, version) in table.items():
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
      about = json.loads(str(file["about"]))
    assert repository == about["repository"]
    assert version == (about["commit"][:10] if about["commit"] else about["versions"][record.NUMBERS[name].library]), (
      name
    )
