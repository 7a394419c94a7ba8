"""Passkey retrieval at eleven depths (Mohtashami & Jaggi 2023, arXiv:2305.16300), by data/needle.py. Not yet measured.

The number is asked for after text of the training length and beyond: `eval_lengths=(1024,4096)`. Chance is 10 % a
digit. `keys` above 1 hides several numbers.

  python main.py --config configs/needle.py:mixer=gated_delta_net,length=512 --workdir runs/needle
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
  """`mixer` and sizes by argument."""
  c = base.defaults()
  c.steps = 2000
  c.data = ConfigDict(
    {
      "name": "needle",
      "batch": 16,
      "length": 1024,
      "seed": 0,
      "vocab": 256,
      "eval_rows": 100,
      "keys": 1,
      "eval_lengths": (),
      "eval_depths": (0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100),
    }
  )
  c.optimizer.lr = 1e-3
  c.eval.every = 500
  return base.parse(c, arg)
