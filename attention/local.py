"""Local attention: one head of keys and values over a sliding window. State: a window.

De et al. 2024, arXiv:2402.19427, sec. 2.3 and app. A (Griffin); Beltagy et al. 2020, arXiv:2004.05150. Shazeer 2019,
arXiv:1911.02150, for the one head of keys.
"""

import flax.linen as nn

from attention.softmax import Attention
from mistake import Mistake


class LocalAttention(Attention):
  """`Attention` as in Griffin and RecurrentGemma: the first half of each head turns, W_o has a bias.

  y_t = W_o concat_i(sum_s softmax_s(R_t q_ti . R_s k_s / sqrt(k)) v_s) + b_o over the last `window` tokens s <= t

  The state is a ring: however many tokens come, it holds those of the last window. The window counts the current token,
  as in the paper; a released checkpoint's window of 2048 is 2048 here, as transformers reads it. Departs: the authors'
  own JAX code sees one token more.

  Attributes: those of `Attention`, some with other defaults:
    heads: the largest divisor of the width not above 10 that leaves pairs to turn, if not given.
  """

  kv_heads: int | None = 1
  window: int | None = 2048
  position: str = "rope"
  rotary: float = 0.5
  bias: str = "out"

  STATE = "window"
  MOST_HEADS = 10

  @nn.nowrap
  def check(self) -> None:
    if self.window is None or self.mask == "full":
      raise Mistake(f"LocalAttention: window={self.window}, mask={self.mask!r}; without a window use 'softmax'")
    super().check()
