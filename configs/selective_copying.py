"""Selective copying at CPU size: 8 tokens scattered among noise (Mamba, Gu & Dao 2023, App. E.1, tables 1 and 2).

The paper's size is `:length=4112,tokens=16,batch=64,steps=400000,lr=1e-4,stages=(),max_len=8192`. The default starts
with sequences of 64, packed into the row. In a throw-away prototype a Mamba of this size reached 92 % at length 64 in
1,400 steps of batch 32, then 98.7 % at length 256 in 600 of batch 16, 351 s in all on one CPU core; S4D had 72.7 % at
length 64 after the same 1,400 (one seed, learning rate 2e-3).

  python main.py --config configs/selective_copying.py --workdir runs/copying
  ./dev sweep --config configs/selective_copying.py --out runs/copying_sweep
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import base

LEARNING_RATES = (1e-3, 2e-3, 4e-3)
MIXERS: tuple[dict[str, Any], ...] = (
  {"mixer": "mamba"},
  {"mixer": "softmax", "position": "learned"},
  {"mixer": "s4d"},
  {"mixer": "s5"},
)


def get_config(arg: str = "") -> ConfigDict:
  """Sizes by argument; `length` is the whole row, answers included."""
  c = base.defaults()
  c.steps = 2000
  c.data = ConfigDict(
    {
      "name": "selective_copying",
      "batch": 16,
      "length": 256,
      "seed": 0,
      "vocab": 16,
      "tokens": 8,
      "stages": ((0, 64), (1400, 256)),
      "eval_rows": 512,
    }
  )
  c.optimizer.lr = 2e-3
  c.optimizer.b2 = 0.999
  c.eval.every = 200
  return base.parse(c, arg)


def get_sweep() -> Iterator[dict[str, Any]]:
  """Returns each mixer at each learning rate; steps and data are the same."""
  for mixer in MIXERS:
    for lr in LEARNING_RATES:
      yield mixer | {"lr": lr}
