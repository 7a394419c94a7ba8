"""LSTM: the initial bias of its forget gate; tests/mixers/rnn.py has the other facts."""

import numpy as np

from ssm.rnn.lstm import LSTM
from tests.initial import initial

SMALL = {"": {}}
ORACLE = {"": {}}
REFUSED: list = []


def count(d):
  """Two square maps and a bias for each of i, f, g and o."""
  return 4 * (2 * d * d + d)


def test_a_new_lstm_remembers():
  np.testing.assert_array_equal(initial(LSTM(width=6))["bias"], np.repeat([0, 1, 0, 0], 6))
