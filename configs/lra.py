"""The Long Range Arena (Tay et al. 2021, arXiv:2011.04006): its six tasks × ten models × the official settings.

`task` is listops, text, retrieval, image, pathfinder or path_x, `mixer` a key of MODELS. Width, depth, state, rates,
batch, steps and decay are those of the code of S4 (V4), S5, Mega and minimal-LRU; those of the LRA repository for
attention; mamba, mamba2 and the short convolution, which it has no settings for, take S5's. Published accuracies in per
cent:

             listops  text   retrieval  image  pathfinder  path_x
  s4         59.60    86.82  90.90      88.65  94.20       96.35    Gu et al. 2022, arXiv:2111.00396 (S4-LegS)
  s4d        60.47    86.18  89.46      88.19  93.06       91.95    Gu et al. 2022, arXiv:2206.11893
  s5         62.15    89.31  91.40      88.00  95.33       98.58    Smith et al. 2023, arXiv:2208.04933, table 1
  lru        60.2     89.4   89.9       89.0   95.1        94.2     Orvieto et al. 2023, arXiv:2303.06349
  mega       63.14    90.43  91.25      90.44  96.01       97.98    Ma et al. 2023, arXiv:2209.10655
  softmax    36.37    64.27  57.46      42.44  71.40       50       LRA's README; later work finds it undertrained
  performer  18.01    65.40  53.82      42.77  77.05       50       LRA's README

None has been run at these settings. Cost: S4's authors give 56 minutes an epoch of Path-X on an A100; on two CPU cores
an update of s5 on listops takes seconds, so that these are for accelerators. `gated_conv` sees three tokens: what it
reaches needs no long range (arXiv:2501.14850 finds that to be most of the rest).

  python main.py --config configs/lra.py:task=listops,mixer=s5 --workdir runs/listops_s5
  python main.py --config configs/lra.py:task=image,mixer=s4,dir=FOLDER --workdir runs/image_s4
  ./dev sweep --config configs/lra.py:task=listops --out runs/listops

Departs: layer norm for the batch norm of S4, S5, LRU and Mega; S4 and S4D read both ways by two layers, not by two
kernels of one; text and retrieval are bytes, not characters; selection is on a part held out of the training
set where S4's and S5's code selects on the test set (`validation` is its share).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from configs import base, grammar

LISTOPS = {"name": "listops", "length": 2048, "vocab": 16, "eval_rows": 2000, "shortest": 500, "longest": 2000}
NAMED = {"name": "named", "longer": "cut", "validation": 0.1, "test": 0.1, "normalise": True, "balanced": False}
PATHS = {"name": "pathfinder", "eval_rows": 2000, "contour": 14, "train_rows": 160000, "scale": "centred"}
TASKS: dict[str, dict[str, Any]] = {
  "listops": LISTOPS | {"train_rows": 96000},
  "text": NAMED | {"dataset": "imdb", "length": 4096, "dir": ""},
  "retrieval": {"name": "retrieval", "length": 4000, "dir": ""},
  "image": NAMED | {"dataset": "cifar10_grey", "length": 1024, "dir": ""},
  "pathfinder": PATHS | {"side": 32, "dir": ""},
  "path_x": PATHS | {"side": 128, "dir": ""},
}
# rows of the training sets, for epochs
ROWS = {"listops": 96000, "text": 22500, "retrieval": 147086, "image": 45000, "pathfinder": 160000, "path_x": 160000}


class Recipe(NamedTuple):
  """The settings of a model on a task; `slow` is the rate of a mixer's slow parameters."""

  width: int
  depth: int
  mixer: dict[str, Any]
  lr: float
  slow: float
  decay: float
  batch: int
  steps: int
  warmup: int
  dropout: float = 0.0
  norm: str = "pre"
  schedule: str = "cosine"


def s4(name: str, task: str) -> Recipe:
  """S4's V4 repository, configs/experiment/lra; S4D shares them."""
  width, state, lr, batch, steps, drop, norm = {
    "listops": (256, 4, 0.01, 32, 120_000, 0.0, "post"),
    "text": (256, 4, 0.01, 16, 50_000, 0.0, "pre"),
    "retrieval": (256, 4, 0.01, 64, 50_000, 0.0, "pre"),
    "image": (512, 64, 0.01, 50, 180_000, 0.1, "post"),
    "pathfinder": (256, 64, 0.004, 64, 500_000, 0.0, "pre"),
    "path_x": (256, 64, 0.001, 16, 500_000, 0.0, "pre"),
  }[task]
  inner: dict[str, Any] = {"name": name, "state": state}
  inner |= {} if task in ("pathfinder", "path_x") else {"copies": 1}
  inner |= {"dt_min": 1e-4} if task == "path_x" else {}
  mixer = {"name": "bidirectional", "mixer": inner}
  return Recipe(width, 6, mixer, lr, min(1e-3, lr), 0.05, batch, steps, steps // 10, drop, norm)


def s5(task: str, mixer: dict[str, Any] | None = None) -> Recipe:
  """S5's bin/run_experiments; with another mixer, its sizes and rates."""
  width, depth, state, blocks, act, factor, slow, decay, batch, epochs, drop, dt_min = {
    "listops": (128, 8, 16, 8, "half_glu2", 3, 1e-3, 0.04, 50, 40, 0.0, 1e-3),
    "text": (256, 6, 192, 12, "half_glu2", 4, 1e-3, 0.07, 50, 35, 0.1, 1e-3),
    "retrieval": (128, 6, 256, 16, "half_glu1", 2, 1e-3, 0.05, 32, 20, 0.0, 1e-3),
    "image": (512, 6, 384, 3, "half_glu1", 4.5, 1e-3, 0.07, 50, 250, 0.1, 1e-3),
    "pathfinder": (192, 6, 256, 8, "half_glu1", 5, 9e-4, 0.03, 64, 200, 0.05, 1e-3),
    "path_x": (128, 6, 256, 16, "half_glu1", 3, 6e-4, 0.06, 32, 75, 0.0, 1e-4),
  }[task]
  own = {"name": "s5", "state": state, "blocks": blocks, "activation": act, "dt_min": dt_min, "bidirectional": True}
  epoch = ROWS[task] // batch
  lr = factor * slow if mixer is None else 1e-3
  return Recipe(width, depth, mixer or own, lr, min(slow, lr), decay, batch, epochs * epoch, epoch, drop)


def lru(task: str) -> Recipe:
  """minimal-LRU's defaults."""
  epochs = {"listops": 40, "text": 35, "retrieval": 20, "image": 180, "pathfinder": 200, "path_x": 75}[task]
  epoch = ROWS[task] // 64
  mixer = {"name": "bidirectional", "mixer": {"name": "lru", "state": 128}}
  return Recipe(256, 4, mixer, 1e-3, 5e-4, 0.05, 64, epochs * epoch, epoch, 0.1)


def mega(task: str) -> Recipe:
  """Mega's examples/mega/README.lra.md: linear decay to 0; widths, values and attention of each task."""
  width, inner, depth, weights, lr, decay, batch, steps, warmup = {
    "listops": (80, 160, 6, "softmax", 1e-3, 0.01, 64, 90_000, 3_000),
    "text": (128, 256, 4, "softmax", 4e-3, 0.01, 50, 25_000, 10_000),
    "retrieval": (128, 256, 6, "softmax", 3e-3, 0.04, 64, 91_960, 10_000),
    "image": (160, 320, 8, "laplace", 0.01, 0.02, 50, 180_000, 9_000),
    "pathfinder": (128, 256, 6, "laplace", 0.01, 0.01, 128, 250_000, 50_000),
    "path_x": (64, 128, 4, "laplace", 0.01, 0.01, 16, 125_000, 25_000),
  }[task]
  mixer = {"name": "mega", "state": 16, "inner": inner, "weights": weights, "bidirectional": True, "chunk": None}
  return Recipe(width, depth, mixer, lr, lr, decay, batch, steps, warmup, 0.1, "pre", "linear")


def attention(task: str, mixer: dict[str, Any]) -> Recipe:
  """Makes the LRA repository's Transformers, an MLP after each mixer; the rate decays as 0.05 / sqrt(step)."""
  width, depth, heads, lr, decay, batch, steps, warmup = {
    "listops": (512, 4, 8, 1.6e-3, 0.1, 32, 5_000, 1_000),
    "text": (256, 4, 4, 5.6e-4, 0.1, 32, 20_000, 8_000),
    "retrieval": (128, 4, 4, 1.6e-3, 0.1, 32, 5_000, 1_000),
    "image": (128, 1, 8, 5e-4, 0.0, 256, 200 * (45000 // 256), 175),
    "pathfinder": (32, 1, 2, 1e-3, 0.0, 512, 200 * (160000 // 512), 312),
    "path_x": (32, 1, 2, 1e-3, 0.0, 512, 200 * (160000 // 512), 312),
  }[task]
  schedule = "inverse_sqrt" if task in ("listops", "text", "retrieval") else "cosine"
  return Recipe(width, 2 * depth, mixer | {"heads": heads}, lr, lr, decay, batch, steps, warmup, 0.1, "pre", schedule)


def both(name: str) -> dict[str, Any]:
  """Returns a mixer that reads both ways."""
  return {"name": "bidirectional", "mixer": {"name": name}}


MODELS = {
  "s5": s5,
  "s4": lambda task: s4("s4", task),
  "s4d": lambda task: s4("s4d", task),
  "lru": lru,
  "mega": mega,
  "mamba": lambda task: s5(task, both("mamba")),
  "mamba2": lambda task: s5(task, both("mamba2")),
  "gated_conv": lambda task: s5(task, both("gated_conv")),
  "softmax": lambda task: attention(task, {"name": "softmax", "mask": "full"}),
  "performer": lambda task: attention(task, {"name": "performer", "mask": "full"}),
}
TRANSFORMERS = ("softmax", "performer")


def get_config(arg: str = "") -> ConfigDict:
  """`task` and `mixer`; everything else may follow."""
  task, arg = grammar.take(arg, "task", TASKS)
  name, arg = grammar.take(arg, "mixer", MODELS)
  recipe = MODELS[name](task)
  c = base.defaults()
  c.steps = recipe.steps
  c.data = ConfigDict(TASKS[task] | {"batch": recipe.batch, "seed": 0})
  base.classify(c, pool="mean")
  if task == "retrieval":
    c.model.head.name = "dual_encoder"
  body = c.model.body
  c.model.width, body.depth, body.letters = recipe.width, recipe.depth, ConfigDict({"m": recipe.mixer})
  body.branch = ConfigDict({"norm": {"name": "layer"}, "norm_position": recipe.norm, "dropout": recipe.dropout})
  if name in TRANSFORMERS:
    body.pattern = "m-"
    body.letters["-"] = ConfigDict({"name": "mlp", "expand": 2 if task == "listops" else 4})
    c.model.embed.position = "learned"
  c.model.embed.name = "tokens" if task in ("listops", "text", "retrieval") else "features"
  if c.data.name == "named":
    c.model.head.counts = "classes"
  o = c.optimizer
  o.lr, o.slow_lr, o.weight_decay, o.warmup = recipe.lr, recipe.slow / recipe.lr, recipe.decay, recipe.warmup
  o.schedule, o.clip, o.b2 = recipe.schedule, 1.0 if name == "mega" else 0.0, 0.98 if name == "mega" else 0.999
  c.eval.every = c.save.every = 5000
  return base.parse(c, arg)


def get_sweep() -> Iterator[dict[str, Any]]:
  """Returns every model."""
  for name in MODELS:
    yield {"mixer": name}
