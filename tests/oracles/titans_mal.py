"""Titans' memory as a layer, arXiv:2501.00663, eqs. (29)-(31), with persistent tokens in the attention alone."""

from tests.oracles import softmax, titans
from tests.oracles.titans_mag import part


def run(p, x, *, reset=None, lengths=None, memory, attention):
  m = titans.run(part(p, "titans"), x, reset=reset, lengths=lengths, **memory)
  return softmax.run(part(p, "attention"), m, reset=reset, lengths=lengths, **attention)
