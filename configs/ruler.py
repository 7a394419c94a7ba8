"""RULER's synthetic problems with words for tokens (Hsieh et al. 2024, arXiv:2404.06654). Not yet measured.

Published for models of billions of parameters on text, at 4,096 … 131,072 tokens; here small models are trained on the
problem itself. `problem` is niah, variable_tracking, common_words or frequent_words; data/ruler.py says which fields
make the published variants of niah.

  python main.py --config configs/ruler.py:keys=4,queries=4,mixer=gated_delta_net --workdir runs/multiquery
  python main.py --config configs/ruler.py:problem=variable_tracking,mixer=mamba --workdir runs/tracking
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
  """`problem`, mixer and sizes by argument."""
  c = base.defaults()
  c.steps = 5000
  c.data = ConfigDict(
    {
      "name": "ruler",
      "batch": 32,
      "length": 512,
      "seed": 0,
      "vocab": 512,
      "eval_rows": 256,
      "problem": "niah",
      "keys": 1,
      "values": 1,
      "queries": 1,
      "haystack": "noise",
      "hops": 4,
      "eval_lengths": (512, 1024),
    }
  )
  c.model.embed.std = 0.125
  c.optimizer.lr = 2e-3
  c.eval.every = 500
  return base.parse(c, arg)
