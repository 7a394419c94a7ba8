"""Where the tests that need a published data set find it: $DATA_DIR, or shared/data beside the checkout."""

import os
from pathlib import Path

import pytest

from tests import sources

FOLDER = Path(os.environ.get("DATA_DIR") or sources.ROOT.parent / "shared" / "data")


def folder(name: str) -> Path:
  """The folder that holds `name`; skips the test, with the reason, where there is none."""
  if not (FOLDER / name).is_dir():
    pytest.skip(f"needs the data set {name!r}: set DATA_DIR to a folder that holds {name}/")
  return FOLDER
