"""Regular languages in context (RegBench, Akyürek et al. 2024, arXiv:2401.12973), by data/regbench.py. Not measured.

Published order, by the share of next symbols that the automaton allows: attention above Mamba, GLA and RetNet, all far
above LSTM and linear state spaces at 5,000 automata. The paper's runs are 200 epochs of rows up to 1,024 tokens with
12 layers and 4 heads searched over, batches of 32, which is 31,400 steps; the default here is short.

  python main.py --config configs/regbench.py:mixer=softmax,position=learned --workdir runs/regbench_attention
  python main.py --config configs/regbench.py:length=1024,steps=31400,depth=12,mixer=gla --workdir runs/regbench_gla
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
  """`mixer` and sizes by argument."""
  c = base.defaults()
  c.steps = 3000
  c.data = ConfigDict(
    {
      "name": "regbench",
      "batch": 32,
      "length": 512,
      "seed": 0,
      "vocab": 20,
      "eval_rows": 500,
      "states": 12,
      "edges": 4,
      "strings": (10, 20),
      "train_rows": 5000,
    }
  )
  c.optimizer.lr = 1e-3
  c.eval.every = 500
  return base.parse(c, arg)
