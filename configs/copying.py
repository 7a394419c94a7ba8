"""Copying at CPU size: ten tokens, given back after a silence (data/copying.py). Not yet measured.

python main.py --config configs/copying.py:mixer=lru,length=420 --workdir runs/copying_lru
./dev sweep --config configs/copying.py --out runs/copying
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
  """Sizes by argument."""
  c = base.defaults()
  c.steps = 2000
  c.data = ConfigDict(
    {
      "name": "copying",
      "batch": 32,
      "length": 120,
      "seed": 0,
      "vocab": 10,
      "tokens": 10,
      "stages": (),
      "eval_rows": 512,
    }
  )
  c.optimizer.lr = 1e-3
  c.eval.every = 200
  return base.parse(c, arg)
