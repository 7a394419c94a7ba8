"""Pathfinder, Path-X and Path-256 of the Long Range Arena (Tay et al. 2021, arXiv:2011.04006).

Published accuracies in per cent, Pathfinder / Path-X: S4 94.2 / 96.4, S5 95.3 / 98.6, Mega 96.0 / 98.0, Transformer
71.4 / chance (S4's and S5's are of their papers' tables, on the official images; these are drawn by the same procedure
in data/pathfinder.py). S5 reads forwards alone here; `m.bidirectional=true` reads both ways, as theirs does, and
configs/lra.py has their settings. The training images are 160,000, to be drawn into a folder once (measured: shorter
contours, small models and half an hour, docs/results/small_sets.md):

  ./dev pathfinder --side 32 --out FOLDER
  python main.py --config configs/pathfinder.py:dir=FOLDER --workdir runs/pathfinder
  python main.py --config configs/pathfinder.py:side=128,dir=FOLDER,m.dt_min=1e-4 --workdir runs/path_x
  python main.py --config configs/pathfinder.py:contour=6,train_rows=0,batch=16 --workdir runs/pathfinder_easy
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
  """`mixer`, sizes, `side` and `contour` by argument."""
  c = base.defaults()
  c.steps = 5000
  c.data = ConfigDict(
    {
      "name": "pathfinder",
      "batch": 64,
      "seed": 0,
      "eval_rows": 2000,
      "side": 32,
      "contour": 14,
      "train_rows": 160000,
      "scale": "centred",
      "dir": "",
    }
  )
  base.classify(c, pool="mean")
  c.model.width, c.model.embed.name, c.model.body.depth = 64, "features", 4
  c.model.body.letters = ConfigDict({"m": {"name": "s5", "state": 64}})
  c.model.body.branch = ConfigDict({"norm": {"name": "layer"}})
  c.optimizer.lr, c.optimizer.slow_lr, c.optimizer.weight_decay = 4e-3, 0.25, 0.03
  c.optimizer.warmup = 500
  c.eval.every = 1000
  return base.parse(c, arg)
