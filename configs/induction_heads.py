"""Induction heads: trained at length 256, evaluated up to 2^20 (Mamba, Gu & Dao 2023, App. E.1, table 11).

The paper trains 204,800 steps of batch 8 on one trigger, learning rate 1e-3 constant, no weight decay; that is
`:protocol=paper`. The default is a curriculum (short sequences packed into the row, four triggers, then one). In a
throw-away prototype a Mamba of this size reached 100 % at length 256 after 500 steps and 38 s of such a curriculum on
two CPU cores, and in 2,600 steps and 400 more with one trigger it reached 100 % at 2^10, 92 % at 2^12 and 83 % at 2^13
(one seed). Chance is 6.7 %.

  python main.py --config configs/induction_heads.py --workdir runs/induction
  python main.py --config configs/induction_heads.py:mixer=softmax,m.position=rope --workdir runs/induction_rope
  python main.py --workdir runs/induction --mode eval --config.data.eval_lengths='(1024,65536,1048576)'
  --config.eval.chunk=4096
"""

from ml_collections import ConfigDict

from configs import base, grammar

PROTOCOLS = {
  "curriculum": {"steps": 1200, "lr": 2e-3, "score": "triggers", "stages": ((0, 64, 4), (300, 256, 4), (800, 256, 1))},
  "paper": {"steps": 204_800, "lr": 1e-3, "score": "last", "stages": ()},
}


def get_config(arg: str = "") -> ConfigDict:
  """`protocol` is curriculum or paper."""
  name, arg = grammar.take(arg, "protocol", PROTOCOLS)
  protocol = PROTOCOLS[name]
  c = base.defaults()
  c.steps = protocol["steps"]
  c.data = ConfigDict(
    {
      "name": "induction_heads",
      "batch": 8,
      "length": 256,
      "seed": 0,
      "vocab": 16,
      "triggers": 1,
      "score": protocol["score"],
      "stages": protocol["stages"],
      "eval_lengths": (64, 256, 1024),
      "eval_rows": 256,
      "eval_tokens": 2**24,
    }
  )
  c.optimizer.lr = protocol["lr"]
  c.optimizer.schedule = "constant"
  c.optimizer.b2 = 0.999
  c.eval.every = 200
  return base.parse(c, arg)
