"""Faults of machines and people, each with its right outcome: see tests/faults.py."""

import pytest

from tests import faults

QUICK = ("all_checkpoints_damaged", "other_data", "links_in_the_folder", "loss_not_finite")


@pytest.mark.parametrize(
  "name",
  [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in faults.FOLDERS | faults.PROCESSES],
)
def test_a_fault_has_its_right_outcome(tmp_path, name):
  (faults.FOLDERS | faults.PROCESSES)[name](tmp_path)
