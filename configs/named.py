"""Classify the sequences of a data set by its name (data/known_sets.py): images, speech, DNA, events, film reviews.

Published: grey CIFAR-10 of the Long Range Arena, whole, S4 88.7, S5 88.0 %; IMDB S4 86.8, S5 89.3, Transformer 64.3 %
at 4,096 characters; N-MNIST, whole, above 99 %; E. coli promoters 0.84 and Bacillus 0.86 correlation coefficient
(Umarov & Solovyev 2017). Subsets here are smaller, so that none of these is to be expected. Measured:
docs/results/small_sets.md.

  python main.py --config configs/named.py:dataset=imdb,dir=FOLDER,length=1024 --workdir runs/imdb
  python main.py --config configs/named.py:dataset=nmnist_subset,dir=DIR,mixer=event_ssm,window=4 --workdir runs/nmnist
  python main.py --config configs/named.py:dataset=promoters_ecoli,dir=FOLDER,balanced=true --workdir runs/promoters
  python main.py --config configs/named.py:dataset=spoken_digits,dir=FOLDER,length=8000 --workdir runs/digits
"""

from ml_collections import ConfigDict

from configs import base, grammar

DATASETS = {
  "cifar10_subset_grey": "features",
  "cifar10_subset": "features",
  "cifar10_grey": "features",
  "cifar10": "features",
  "spoken_digits": "features",
  "promoters_ecoli": "tokens",
  "promoters_bacillus": "tokens",
  "promoters_mouse": "tokens",
  "promoters_arabidopsis": "tokens",
  "nmnist_subset": "tokens",
  "nmnist_subset_untimed": "tokens",
  "imdb": "tokens",
}
LENGTHS = {"imdb": 1024, "spoken_digits": 8000, "promoters_ecoli": 81, "promoters_bacillus": 81}
LENGTHS |= {"nmnist_subset": 4096, "nmnist_subset_untimed": 4096}
LENGTHS |= dict.fromkeys(("cifar10_subset_grey", "cifar10_subset", "cifar10_grey", "cifar10"), 1024)
LENGTHS |= {"promoters_mouse": 251, "promoters_arabidopsis": 251}


def get_config(arg: str = "") -> ConfigDict:
  """`dataset`, `dir`, mixer and sizes by argument; `window` events become one in each half of the layers."""
  dataset, arg = grammar.take(arg, "dataset", DATASETS)
  given = dict(grammar.pairs(arg))
  window = grammar.convert("window", given.pop("window", "1"), 1)
  c = base.defaults()
  c.steps = 2000
  c.data = ConfigDict(
    {
      "name": "named",
      "batch": 32,
      "length": LENGTHS[dataset],
      "seed": 0,
      "dir": "",
      "longer": "cut",
      "validation": 0.1,
      "test": 0.1,
      "normalise": True,
      "balanced": False,
      "dataset": dataset,
    }
  )
  base.classify(c, pool="mean")
  c.model.head.counts = "classes"
  c.model.embed.name, c.model.width, c.model.body.depth = DATASETS[dataset], 64, 4
  c.model.body.letters = ConfigDict({"m": {"name": "s5", "state": 64}})
  c.optimizer.lr, c.optimizer.slow_lr, c.optimizer.weight_decay = 4e-3, 0.25, 0.05
  c.eval.every = 500
  c = base.parse(c, ",".join(f"{key}={text}" for key, text in given.items()))
  base.pool_events(c, window=window, mode="mean")
  return c
