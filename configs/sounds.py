"""Sound generation by samples: SaShiMi on YouTubeMix, SC09 or a folder of yours (Goel et al. 2022, arXiv:2202.09729).

`dataset` is youtubemix (clips of 131,072 samples, batch 1), sc09 (16,000, batch 32) or own. Width 64, eight layers a
stage, two poolings by 4, S4 with DPLR state spaces, learning rate 0.004, as the authors' configs; their rate falls at
plateaus, ours by a cosine over `steps`. Published bits per sample: YouTubeMix SaShiMi 1.294, WaveNet 1.449, SampleRNN
1.723 (tab. 4); SC09 SaShiMi 1.891, WaveNet 1.925, SampleRNN 2.042 (tab. 6). Not run here at this size: on a GPU the
authors train for days.

  python main.py --config configs/sounds.py:dataset=sc09,dir=FOLDER --workdir runs/sc09
  python main.py --config configs/sounds.py:dataset=own,dir=FOLDER,length=8000,width=16 --workdir runs/own
"""

from ml_collections import ConfigDict

from configs import base, grammar

DIGITS = "(zero|one|two|three|four|five|six|seven|eight|nine)"
# length, batch and steps of the authors' configs; 0.12 of YouTubeMix is held out
SETS = {
  "youtubemix": {"length": 131072, "batch": 1, "validation": 0.12, "pattern": r".*\.wav"},
  "sc09": {"length": 16000, "batch": 32, "validation": 0.1, "pattern": DIGITS + r"/.*\.wav"},
  "own": {"length": 16000, "batch": 4, "validation": 0.1, "pattern": r".*\.wav"},
}


def get_config(arg: str = "") -> ConfigDict:
  """`dataset`, `dir` and sizes by argument."""
  dataset, arg = grammar.take(arg, "dataset", SETS)
  c = base.defaults()
  c.steps = 500_000
  c.data = ConfigDict(base.text_section(name="sounds", dir="", code="mu_law", **SETS[dataset]))
  letters = {"s": {"name": "s4", "state": 64}, "-": {"name": "mlp", "expand": 2, "bias": True}}
  stack = {"pattern": "s-", "depth": 16, "letters": letters, "branch": {"norm": {"name": "layer"}}}
  c.model.width, c.model.head.tie = 64, False
  c.model.body = ConfigDict({"name": "unet", "pools": (4, 4), "expand": 2, "stack": stack})
  o = c.optimizer
  o.lr, o.slow_lr, o.b2, o.clip = 4e-3, 0.25, 0.999, 0.0
  c.eval.every, c.eval.batches, c.save.every, c.generate.tokens = 10_000, 50, 5_000, 0
  return base.parse(c, arg)
