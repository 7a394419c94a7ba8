"""Associative recall at CPU size (H3, Fu et al. 2023, arXiv:2212.14052, sec. 3.1).

Published, with vocabulary and length of their own: attention and H3 above 97 %, S4D less (HazyResearch/safari,
experiments.md). Measured, six mixers: docs/results/associative_recall.md.

  python main.py --config configs/associative_recall.py:mixer=h3 --workdir runs/recall_h3
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
  """Sizes by argument."""
  c = base.defaults()
  c.steps = 2000
  c.data = ConfigDict(
    {
      "name": "associative_recall",
      "batch": 32,
      "length": 22,
      "seed": 0,
      "vocab": 21,
      "keys": 0,
      "eval_rows": 1024,
    }
  )
  c.optimizer.lr = 1e-3
  c.eval.every = 200
  return base.parse(c, arg)
