"""ListOps of the Long Range Arena (Tay et al. 2021, arXiv:2011.04006), by data/listops.py.

Published: Transformer 36.4 %, S4 59.6 %, S5 62.2 % on the official set; measured on short expressions:
docs/results/small_sets.md. The first command is the official size, of rows padded to 2,048 tokens; the second short
expressions, for a CPU.

  python main.py --config configs/listops.py:mixer=s5,width=128,depth=8,batch=50 --workdir runs/listops
  python main.py --config configs/listops.py:length=256,shortest=20,longest=200 --workdir runs/listops_short
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
  """`mixer` and sizes by argument; `train_rows=0` makes new expressions for ever."""
  c = base.defaults()
  c.steps = 5000
  c.data = ConfigDict(
    {
      "name": "listops",
      "batch": 32,
      "length": 2048,
      "seed": 0,
      "vocab": 16,
      "eval_rows": 2000,
      "shortest": 500,
      "longest": 2000,
      "train_rows": 96000,
    }
  )
  base.classify(c, pool="mean")
  c.optimizer.lr, c.optimizer.warmup = 1e-3, 500
  c.eval.every = 1000
  return base.parse(c, arg)
