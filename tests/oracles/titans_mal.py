"""Titans' memory as a layer, arXiv:2501.00663, eqs. (29)-(31), with persistent tokens in the attention alone."""

import numpy as np

from tests.oracles import softmax, titans
from tests.oracles.titans_mag import part


def run(p, x, *, memory, attention):
  m = titans.run(part(p, "titans"), x, **memory)
  return softmax.run(part(p, "attention"), np.stack(m), **attention)
