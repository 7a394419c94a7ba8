"""Copying: repeat the tokens at the front after a long silence (Hochreiter & Schmidhuber 1997; Arjovsky et al. 2016).

The copying task of the S4 code base: `tokens` data tokens, then noise (token 0), then as many markers (token
vocab - 1), at which the data tokens must be given back in order. Only those answers are scored. The silence lasts
length - 2 · tokens positions; chance is 1 / (vocab - 2).
"""

import dataclasses

import numpy as np

from data.selective_copying import SelectiveCopying


@dataclasses.dataclass(frozen=True)
class Copying(SelectiveCopying):
  """Data tokens are uniform on 1 … vocab - 2 and stand at the front. Fields are those of SelectiveCopying."""

  vocab: int = 10
  tokens: int = 10

  def positions(self, u: np.ndarray, space: int) -> np.ndarray:
    """Returns the positions at the front of the row; see `SelectiveCopying.positions`."""
    del space
    return np.broadcast_to(np.arange(u.shape[1], dtype=np.int32), u.shape)
