"""Lets the tests of this folder build the toy mixers beside them."""

import pytest

from hybrids import mixer as mixer_lib


@pytest.fixture(autouse=True)
def _toys(monkeypatch):
  monkeypatch.setattr(mixer_lib, "ROOTS", (*mixer_lib.ROOTS, "tests"))
