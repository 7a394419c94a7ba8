"""The adding problem (Le, Jaitly & Hinton 2015, arXiv:1504.00941, sec. 4.1), by data/adding.py. Not yet measured.

Published: an LSTM and an IRNN reach a mean squared error far below 1/6, that of always saying 1, at 150 … 400 tokens.

  python main.py --config configs/adding.py:mixer=lru,length=400 --workdir runs/adding_lru
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
  """`mixer` and sizes by argument."""
  c = base.defaults()
  c.steps = 2000
  c.data = ConfigDict({"name": "adding", "batch": 32, "length": 200, "seed": 0, "eval_rows": 1024})
  c.model.embed.name = "features"
  c.model.head = ConfigDict({"name": "regression", "pool": "last"})
  c.optimizer.lr = 1e-3
  c.eval.every = 200
  return base.parse(c, arg)
