"""What the processes of a run tell each other; tests/faults.py runs real ones."""

import logging

import numpy as np
import pytest

from training import processes


@pytest.mark.parametrize("others, warns", [(["rows 1", "rows 2"], False), (["rows 1", "rows 0"], True)])
def test_processes_with_the_same_rows_are_warned_of(monkeypatch, caplog, others, warns):
  digests = []
  monkeypatch.setattr(
    processes, "gather", lambda text: digests.append(text) or [text, *(texts[name] for name in others)]
  )
  rows = {"inputs": np.arange(4), "weights": np.ones(4)}
  texts = {"rows 0": "", "rows 1": "1", "rows 2": "2"}
  processes.warn_of_same_rows(rows)
  texts["rows 0"] = digests[0]
  with caplog.at_level(logging.WARNING):
    processes.warn_of_same_rows(dict(reversed(rows.items())))
  assert digests[0] == digests[1]
  assert ("processes 0 and 2 begin with the same rows" in caplog.text) == warns
  processes.warn_of_same_rows({"inputs": np.arange(1, 5), "weights": np.ones(4)})
  assert digests[2] != digests[0]
