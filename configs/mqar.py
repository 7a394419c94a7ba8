"""Multi-query associative recall at CPU size (Zoology, Arora et al. 2023, arXiv:2312.04927, fig. 2).

The paper's smallest setting is `:vocab=8192,batch=512,dropout=0.1,weight_decay=0.1,stages=()`, with widths 64 … 512,
learning rates 1e-4 … 1e-2 and 64 epochs of 100,000 rows; there attention solves every size. Two layers, no MLP, no
random fill, as there. The default grows the number of pairs: in a throw-away prototype a Mamba of this size stayed at
25 % (one pair of four) for 2,700 steps at learning rates 2e-3 and 4e-3 without that, and reached 95.7 % in 7,000 steps
of batch 16 at 3e-3 with it; one-head attention reached 99.5 % in 1,000 steps of batch 64 (two CPU cores, one seed).
In the first 500 of the default stages a row has one pair; `stages=()` has all from the start, for a short trial.
Sweep learning rates finely before calling a model incapable.

  python main.py --config configs/mqar.py:mixer=softmax,m.heads=1,position=learned --workdir runs/mqar_attention
  ./dev sweep --config configs/mqar.py --out runs/mqar_sweep
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import base

LEARNING_RATES = (1e-3, 2e-3, 4e-3)
MIXERS: tuple[dict[str, Any], ...] = (
  {"mixer": "mamba"},
  {"mixer": "softmax", "m.heads": 1, "position": "learned"},
  {"mixer": "s4d"},
  {"mixer": "s5"},
)


def get_config(arg: str = "") -> ConfigDict:
  """Sizes by argument: length, pairs, vocab, width …"""
  c = base.defaults()
  c.steps = 5000
  c.data = ConfigDict(
    {
      "name": "mqar",
      "batch": 64,
      "length": 64,
      "seed": 0,
      "vocab": 256,
      "pairs": 4,
      "power": 0.01,
      "random_non_queries": False,
      "stages": ((0, 1), (500, 2), (1500, 4)),
      "mixture": (),
      "eval_sizes": (),
      "eval_rows": 1024,
    }
  )
  # width^(-1/2): from 0.02, one-head attention of this size stays at one pair of four
  c.model.embed.std = 0.125
  c.optimizer.lr = 2e-3
  c.optimizer.b2 = 0.999
  return base.parse(c, arg)


def get_sweep() -> Iterator[dict[str, Any]]:
  """Returns each mixer at each learning rate; steps and data are the same."""
  for mixer in MIXERS:
    for lr in LEARNING_RATES:
      yield mixer | {"lr": lr}
