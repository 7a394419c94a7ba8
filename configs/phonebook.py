"""Phonebook look-up (Jelassi et al. 2024, arXiv:2402.01032), by data/phonebook.py. Not yet measured.

Published: Pythia models look up numbers in books on which Mamba models of the same size fail, the earlier the longer
the book. `asked=start` says before the book who is asked for.

  python main.py --config configs/phonebook.py:pattern=ma,m=mamba2,a=softmax --workdir runs/phonebook_hybrid
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
  """`mixer` and sizes by argument."""
  c = base.defaults()
  c.steps = 4000
  c.data = ConfigDict(
    {
      "name": "phonebook",
      "batch": 16,
      "length": 0,
      "seed": 0,
      "vocab": 256,
      "eval_rows": 256,
      "entries": 20,
      "shortest": 3,
      "asked": "end",
      "eval_entries": (5, 10, 20, 40),
    }
  )
  c.optimizer.lr = 1e-3
  c.eval.every = 500
  return base.parse(c, arg)
