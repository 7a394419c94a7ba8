"""Faults of machines and people, each with its right outcome: see tests/faults.py."""

import signal

import pytest

from tests import faults, peer_faults

QUICK = ("all_checkpoints_damaged", "other_data", "links_in_the_folder", "loss_not_finite")


@pytest.mark.parametrize(
  "name",
  [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in faults.FOLDERS | faults.PROCESSES],
)
def test_a_fault_has_its_right_outcome(tmp_path, name):
  (faults.FOLDERS | faults.PROCESSES)[name](tmp_path)


@pytest.mark.slow
def test_a_signal_to_one_of_four_stops_all(tmp_path):
  peer_faults.signal_to_one(tmp_path, count=4, numbers=(signal.SIGUSR1,))


@pytest.mark.slow
def test_a_full_disk_of_one_of_four_ends_all(tmp_path):
  peer_faults.peer_disk_full(tmp_path, count=4, among=(2,))
