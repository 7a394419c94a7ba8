"""Spoken digits as spikes, event by event: Event-SSM on SHD (Schöne et al. 2024, arXiv:2404.18508).

Published test accuracies in per cent (quoted from memory): SHD 95.5 to 95.9, SSC 87.1 (0.1 million parameters) to 88.4.
Settings are the authors' configs/model/shd/medium: width 96, state 128 in blocks of 8, six layers, dropout 0.23, time
steps from 0.004, rates 1.7e-4 and 1.7e-5, decay 0.03, 30 epochs of batch 32, pooled over time; `set=ssc` blocks of 16,
rates 2.5e-5 and 5e-6, decay 0.05, 200 epochs. Departs: their average over 8 events after three layers, their jitter,
dropped events and CutMix are left out; SHD's test part is no validation set: a tenth of the training part is held out.

`python -m data.prepare shd --from DIR` makes the file; it needs h5py (`EXTRAS=h5 ./dev setup`). Sequences have up to
some ten thousand events, of which `length` are read. Cost: hours on a GPU; not run here.

  python main.py --config configs/shd.py:files=DIR/shd.npz --workdir runs/shd
"""

from ml_collections import ConfigDict

from configs import arrays, base, grammar

# labels, training sequences, epochs, blocks, rate, slow rate, decay, dropout
SETS = {
  "shd": (20, 7340, 30, 8, 1.7e-4, 1.7e-5, 0.03, 0.23),
  "ssc": (35, 75466, 200, 16, 2.5e-5, 5e-6, 0.05, 0.25),
}
BATCH = 32


def get_config(arg: str = "") -> ConfigDict:
  """`set`, `files` and sizes by argument."""
  name, arg = grammar.take(arg, "set", SETS)
  labels, rows, epochs, blocks, lr, slow, decay, dropout = SETS[name]
  c = base.defaults()
  c.steps = epochs * (rows // BATCH)
  names = {"offsets": "offsets", "split": "split", "times": "times", "unit": 0.001}
  c.data = ConfigDict(arrays.DATA | names | {"batch": BATCH, "length": 16384, "longer": "cut"})
  c.data.labels, c.data.channels, c.data.tokens = labels, 1, 700
  base.classify(c, pool="time")
  c.model.head.counts, c.model.width, c.model.body.depth = "classes", 96, 6
  mixer = {"name": "event_ssm", "state": 128, "blocks": blocks, "dt_min": 0.004}
  c.model.body.letters = ConfigDict({"m": mixer})
  c.model.body.branch = ConfigDict({"norm": {"name": "layer"}, "dropout": dropout})
  o = c.optimizer
  o.lr, o.slow_lr, o.weight_decay, o.warmup, o.clip = lr, slow / lr, decay, rows // BATCH, 0.0
  c.eval.every = c.save.every = 1000
  return base.parse(c, arg)
