"""Vim, arXiv:2401.09417, alg. 1: two selective state spaces, one each way, between one pair of maps."""

import numpy as np

from tests.oracles.parts import dense, silu
from tests.oracles.s6 import run as scan
from tests.oracles.s6_parts import conv, under


def run(p, x, *, merge="mean"):
  u, z = np.split(dense(p, "in_proj", x), 2, axis=-1)
  ahead = scan(under(p, "forward/"), silu(conv(p, "conv", u))) * silu(z)
  back = scan(under(p, "backward/"), silu(conv(p, "conv_back", u[::-1])))[::-1] * silu(z)
  return dense(p, "out_proj", (ahead + back) / (2 if merge == "mean" else 1))
