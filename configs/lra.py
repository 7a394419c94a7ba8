"""The Long Range Arena (Tay et al. 2021, arXiv:2011.04006): its six tasks × 18 models × the official settings.

`task` is listops, text, retrieval, image, pathfinder or path_x, `mixer` a key of MODELS, or transformer for softmax.
Width, depth, state, rates, batch, steps and decay are those of the code of S4 (V4), S5, Mega and minimal-LRU; the
Transformers have those of the LRA repository's Transformer; mamba, mamba2 and the short convolution, which nobody has
settings for, take S5's. Published accuracies in per cent, 50 where a model stayed at chance:

                      listops  text   retrieval  image  pathfinder  path_x
  s4                  59.60    86.82  90.90      88.65  94.20       96.35    Gu et al. 2022, arXiv:2111.00396 (LegS)
  s4d                 60.47    86.18  89.46      88.19  93.06       91.95    Gu et al. 2022, arXiv:2206.11893
  s5                  62.15    89.31  91.40      88.00  95.33       98.58    Smith et al. 2023, arXiv:2208.04933
  lru                 60.2     89.4   89.9       89.0   95.1        94.2     Orvieto et al. 2023, arXiv:2303.06349
  mega                63.14    90.43  91.25      90.44  96.01       97.98    Ma et al. 2023, arXiv:2209.10655
  softmax             36.37    64.27  57.46      42.44  71.40       50       LRA's README, as the next six; undertrained
  local               15.82    52.98  53.39      41.46  66.63       50
  linear_transformer  16.13    65.90  53.09      42.34  75.30       50
  linformer           35.70    53.94  52.27      38.56  76.34       50
  reformer            37.27    56.10  53.40      38.07  68.50       50
  bigbird             36.05    64.02  59.29      40.83  74.87       50
  performer           18.01    65.40  53.82      42.77  77.05       50       ListOps with 2 random features, as here
  luna                37.25    64.57  79.29      47.38  77.72       50       Luna-256, as S4's table has it and the next
  fnet                35.33    65.11  59.61      38.67  77.80       50       two, whose own settings are not known here:
  nystromformer       37.15    65.52  79.56      41.58  70.94       50       these are the Transformer's

None has been run at these settings. Cost: S4's authors give 56 minutes an epoch of Path-X on an A100; on two CPU cores
an update of s5 on listops takes seconds, so that these are for accelerators. `gated_conv` sees five tokens a layer, two
to either side, which makes 33 on ListOps and 25 elsewhere: what it reaches needs no long range (arXiv:2501.14850 finds
that to be most of the rest).

  python main.py --config configs/lra.py:task=listops,mixer=s5 --workdir runs/listops_s5
  python main.py --config configs/lra.py:task=image,mixer=s4,dir=FOLDER --workdir runs/image_s4
  ./dev sweep --config configs/lra.py:task=listops --out runs/listops

Departs: for Mega's ScaleNorm on Text and Retrieval, RMSNorm, which has a scale for each channel; Mega's bias by
distance is by rotations, where its code has a number for each distance; LRU begins all over the unit disk, where its
paper takes narrow rings and phases for long tasks; biases and norms have no decay; S4 and S4D read both ways by two
layers, not by two kernels of one, and their steps are exp(log_dt), where V4 takes the softplus; local attention is the
sum of one over the last 50 or 64 tokens and one over the next, where LRA's is within blocks of so many; Transformers do
not drop weights of attention and do not mask black pixels as padding; their class token begins at random, not at 0;
they compare documents as S5 does, by [u, v, u - v, u · v] and one hidden layer, where LRA's have [u, v] and two; on
images those but softmax and local attention have heads as wide as the model, LRA's half of that; Mega's warm-up on
Path-X is linear; text and retrieval are bytes, not characters; selection is on a part held out of the training set
where S4's and S5's code selects on the test set (`validation` is its share). ListOps and Pathfinder are made here; both
have their official numbers of test rows.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from configs import base, grammar

LISTOPS = {"name": "listops", "length": 2048, "vocab": 16, "eval_rows": 2000, "shortest": 500, "longest": 2000}
NAMED = {"name": "named", "longer": "cut", "validation": 0.1, "test": 0.1, "normalise": True, "balanced": False}
PATHS = {"name": "pathfinder", "eval_rows": 20000, "contour": 14, "train_rows": 160000, "scale": "centred"}
TASKS: dict[str, dict[str, Any]] = {
  "listops": LISTOPS | {"train_rows": 96000},
  "text": NAMED | {"dataset": "imdb", "length": 4096, "dir": ""},
  "retrieval": {"name": "retrieval", "length": 4000, "dir": ""},
  "image": NAMED | {"dataset": "cifar10_grey", "length": 1024, "dir": ""},
  "pathfinder": PATHS | {"side": 32, "dir": ""},
  "path_x": PATHS | {"side": 128, "dir": ""},
}
TOKENS = ("listops", "text", "retrieval")
# rows of the training sets, for epochs
ROWS = {"listops": 96000, "text": 22500, "retrieval": 147086, "image": 45000, "pathfinder": 160000, "path_x": 160000}
LECUN, TRUNC = "lecun_normal", "trunc_standard_normal"
# parameters' names in the rows of optimizer.groups
B, DT = "/B_(re|im)$", "/log_dt$"


class Recipe(NamedTuple):
  """The settings of a model on a task.

  Attributes:
    depth: number of mixers, each of which has an MLP after it if `mlp` is given.
    slow: rate of a mixer's slow parameters.
    position: where a branch has its norm.
    groups: rows of optimizer.groups, for parameters that have a rate or a decay of their own.
  """

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
  position: str = "pre"
  schedule: str = "cosine"
  norm: dict[str, Any] = {"name": "layer"}
  mlp: dict[str, Any] | None = None
  groups: tuple[tuple[str, dict[str, float]], ...] = ()
  clip: float = 0.0
  pool: str = "mean"
  b2: float = 0.999
  eps: float = 1e-8


def s4(name: str, task: str) -> Recipe:
  """S4's V4 repository (e757cef), configs/experiment/lra/s4-TASK.yaml; S4D shares them.

  Time steps of small states have the global rate. Path-X has 0.001 for all in that file; the rates of older versions
  (old/v3-s4-pathx.yaml: 0.001, and 0.0005 for the state space) are not used.
  """
  width, state, lr, batch, steps, drop, position = {
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
  groups = ((DT, {"lr": 1.0}),) if state == 4 else ()
  recipe = Recipe(width, 6, mixer, lr, min(1e-3, lr), 0.05, batch, steps, steps // 10, drop, position)
  return recipe._replace(norm={"name": "batch"}, groups=groups)


def s5(task: str, mixer: dict[str, Any] | None = None) -> Recipe:
  """S5's bin/run_experiments; with another mixer, its sizes and rates."""
  width, depth, state, blocks, act, C_init, factor, slow, decay, batch, epochs, drop = {
    "listops": (128, 8, 16, 8, "half_glu2", LECUN, 3, 1e-3, 0.04, 50, 40, 0.0),
    "text": (256, 6, 192, 12, "half_glu2", LECUN, 4, 1e-3, 0.07, 50, 35, 0.1),
    "retrieval": (128, 6, 256, 16, "half_glu1", TRUNC, 2, 1e-3, 0.05, 32, 20, 0.0),
    "image": (512, 6, 384, 3, "half_glu1", LECUN, 4.5, 1e-3, 0.07, 50, 250, 0.1),
    "pathfinder": (192, 6, 256, 8, "half_glu1", TRUNC, 5, 9e-4, 0.03, 64, 200, 0.05),
    "path_x": (128, 6, 256, 16, "half_glu1", "complex_normal", 3, 6e-4, 0.06, 32, 75, 0.0),
  }[task]
  epoch = ROWS[task] // batch
  if mixer is not None:
    return Recipe(width, depth, mixer, 1e-3, min(slow, 1e-3), decay, batch, epochs * epoch, epoch, drop)
  own: dict[str, Any] = {"name": "s5", "state": state, "blocks": blocks, "activation": act, "C_init": C_init}
  own |= {"bidirectional": True, "clip_eigs": task == "image", "dt_min": 1e-4 if task == "path_x" else 1e-3}
  # their opt_config: B with decay, at the global rate or not; their dt_global: the time steps as all other weights
  alike = {"lr": 1.0, "weight_decay": decay}
  groups: dict[str, tuple] = {"path_x": ((B, {"weight_decay": decay}),), "pathfinder": ()}
  groups |= dict.fromkeys(("listops", "image"), ((B, alike),)) | dict.fromkeys(("text", "retrieval"), ((DT, alike),))
  warmup = 0 if task == "text" else epoch
  norm = {"name": "batch", "momentum": 0.9 if task in ("pathfinder", "path_x") else 0.95}
  lr, steps = factor * slow, epochs * epoch
  return Recipe(width, depth, own, lr, slow, decay, batch, steps, warmup, drop, norm=norm, groups=groups[task])


def lru(task: str) -> Recipe:
  """minimal-LRU's defaults."""
  epochs = {"listops": 40, "text": 35, "retrieval": 20, "image": 180, "pathfinder": 200, "path_x": 75}[task]
  epoch = ROWS[task] // 64
  mixer = {"name": "bidirectional", "mixer": {"name": "lru", "state": 128}}
  return Recipe(256, 4, mixer, 1e-3, 5e-4, 0.05, 64, epochs * epoch, epoch, 0.1, norm={"name": "batch"})


def mega(task: str) -> Recipe:
  """Mega's examples/mega/README.lra.md and fairseq/models/lra/model.py: linear decay to 0; an MLP as wide as values."""
  width, inner, keys, depth, weights, lr, decay, batch, steps, warmup = {
    "listops": (80, 160, 64, 6, "softmax", 1e-3, 0.01, 64, 90_000, 3_000),
    "text": (128, 256, 64, 4, "softmax", 4e-3, 0.01, 50, 25_000, 10_000),
    "retrieval": (128, 256, 64, 6, "softmax", 3e-3, 0.04, 64, 91_960, 10_000),
    "image": (160, 320, 96, 8, "laplace", 0.01, 0.02, 50, 180_000, 9_000),
    "pathfinder": (128, 256, 64, 6, "laplace", 0.01, 0.01, 128, 250_000, 50_000),
    "path_x": (64, 128, 32, 4, "laplace", 0.01, 0.01, 16, 125_000, 25_000),
  }[task]
  mixer = {"name": "mega", "state": 16, "inner": inner, "keys": keys, "weights": weights, "bidirectional": True}
  drop, position = (0.1, "post") if task in TOKENS else (0.0, "pre")
  norm = {"listops": "layer", "text": "rms", "retrieval": "rms"}.get(task, "batch")
  mlp = {"inner": inner, "activation": "silu", "bias": True}
  recipe = Recipe(width, depth, mixer | {"chunk": None}, lr, lr, decay, batch, steps, warmup, drop, position, "linear")
  return recipe._replace(norm={"name": norm}, mlp=mlp, clip=1.0, b2=0.98)


# the LRA repository's Transformers: width, depth, heads, their channels together, those of the MLP, dropout
SIZES = {
  "listops": (512, 4, 8, 512, 1024, 0.1),
  "text": (256, 4, 4, 256, 1024, 0.1),
  "retrieval": (128, 4, 4, 128, 512, 0.1),
  "image": (128, 1, 8, 64, 128, 0.3),
  "pathfinder": (32, 4, 4, 16, 32, 0.2),
  "path_x": (32, 1, 2, 16, 32, 0.1),
}
# where a model has a file of its own with other sizes
OWN_SIZES = {
  ("pathfinder", "performer"): (32, 4, 8, 16, 32, 0.2),
  ("pathfinder", "linear_transformer"): (128, 1, 2, 64, 128, 0.2),
}


def attention(task: str, mixer: dict[str, Any]) -> Recipe:
  """Makes the LRA repository's Transformers (cd31e5c, lra_benchmarks/TASK/configs), an MLP after each mixer.

  On tokens the rate is 0.05 min(1, step / warmup) / sqrt(max(step, warmup)). On Retrieval their warm-up of 8,000 is
  longer than the training of 5,000 steps, so that the rate rises to 3.5e-4 and never falls.
  """
  name = mixer["name"]
  width, depth, heads, inner, hidden, drop = OWN_SIZES.get((task, name), SIZES[task])
  lr, decay, batch, steps, warmup = {
    "listops": (1.58e-3, 0.1, 32, 5_000, 1_000),
    "text": (5.59e-4, 0.1, 32, 20_000, 8_000),
    "retrieval": (3.49e-4, 0.1, 32, 5_000, 4_999),
    "image": (5e-4, 0.0, 256, 200 * (45000 // 256), 175),
    "pathfinder": (1e-3, 0.0, 512, 200 * (160000 // 512), 312),
    "path_x": (1e-3, 0.0, 64, 200 * (160000 // 64), 2500),
  }[task]
  schedule = "inverse_sqrt" if task in TOKENS else "cosine"
  pool = "cls" if task in TOKENS or task == "image" and name != "local" else "mean"
  mixer = mixer if name == "fnet" else mixer | {"heads": heads}
  if name in ("softmax", "local"):
    mixer["head_size"] = inner // heads
  if name == "performer":
    mixer |= {"features": 2} if task == "listops" else {"kernel": "relu"}
  if name in ("linformer", "bigbird"):
    mixer["max_len"] = (TASKS[task].get("length") or TASKS[task]["side"] ** 2) + (pool == "cls")
  if name == "local":
    local = {"kv_heads": heads, "window": 50 if task in TOKENS else 64, "position": "none", "bias": "none"}
    mixer = {"name": "bidirectional", "shared": True, "mixer": mixer | local}
  recipe = Recipe(width, depth, mixer, lr, lr, decay, batch, steps, warmup, drop, "pre", schedule)
  clip = 1.0 if task == "path_x" else 0.0
  return recipe._replace(mlp={"inner": hidden}, clip=clip, pool=pool, b2=0.98, eps=1e-9)


def both(name: str) -> dict[str, Any]:
  """Returns a mixer that reads both ways."""
  return {"name": "bidirectional", "mixer": {"name": name}}


# the LRA repository's Transformers and those that came after it; what is not here is the mixer's default
TRANSFORMERS: dict[str, dict[str, Any]] = {
  "softmax": {"mask": "full"},
  "local": {},
  "linear_transformer": {"mask": "full"},
  "linformer": {},
  "reformer": {},
  "bigbird": {},
  "performer": {"mask": "full"},
  "luna": {},
  "fnet": {},
  "nystromformer": {},
}
MODELS: dict[str, Callable[[str], Recipe]] = {
  "s5": s5,
  "s4": lambda task: s4("s4", task),
  "s4d": lambda task: s4("s4d", task),
  "lru": lru,
  "mega": mega,
  "mamba": lambda task: s5(task, both("mamba")),
  "mamba2": lambda task: s5(task, both("mamba2")),
  "gated_conv": lambda task: s5(task, both("gated_conv")),
  **{name: functools.partial(attention, mixer={"name": name} | fields) for name, fields in TRANSFORMERS.items()},
}
ALIASES = {"transformer": "softmax"}


def get_config(arg: str = "") -> ConfigDict:
  """`task` and `mixer`; everything else may follow."""
  task, arg = grammar.take(arg, "task", TASKS)
  name, arg = grammar.take(arg, "mixer", [*MODELS, *ALIASES])
  name = ALIASES.get(name, name)
  recipe = MODELS[name](task)
  c = base.defaults()
  c.steps = recipe.steps
  c.data = ConfigDict(TASKS[task] | {"batch": recipe.batch, "seed": 0})
  base.classify(c, pool=recipe.pool)
  if task == "retrieval":
    c.model.head.name = "dual_encoder"
  body = c.model.body
  c.model.width, body.depth, body.letters = recipe.width, recipe.depth, ConfigDict({"m": recipe.mixer})
  norm = {"norm": recipe.norm, "norm_position": recipe.position}
  body.branch = ConfigDict(norm | {"dropout": recipe.dropout})
  if recipe.mlp is not None:
    body.pattern, body.depth = "m-", 2 * recipe.depth
    body.letters["-"] = ConfigDict({"name": "mlp"} | recipe.mlp)
  c.model.embed.name = "tokens" if task in TOKENS or name in TRANSFORMERS else "features"
  if name in TRANSFORMERS:
    as_tokens(c, task)
    c.model.head.inner = body.letters["-"].inner
    if recipe.pool == "cls":
      c.model.embed.class_token = "start"
  if c.data.name == "named":
    c.model.head.counts = "classes"
  if name in ("s4", "s4d") and c.data.name == "pathfinder":
    c.data.scale = "unit"
  o = c.optimizer
  o.lr, o.slow_lr, o.weight_decay, o.warmup = recipe.lr, recipe.slow / recipe.lr, recipe.decay, recipe.warmup
  o.groups = recipe.groups
  o.schedule, o.clip, o.b2, o.eps = recipe.schedule, recipe.clip, recipe.b2, recipe.eps
  c.eval.every = c.save.every = 5000
  return base.parse(c, arg)


def as_tokens(c: ConfigDict, task: str) -> None:
  """Makes pixels 256 tokens, and tokens and positions the vectors that the LRA repository's Transformers have."""
  c.model.embed.position = "learned" if task in ("image", "path_x") else "sinusoidal"
  c.model.embed.std, c.model.embed.position_std = 1.0, 0.02
  if task == "image":
    c.data.dataset = "cifar10_grey_tokens"
  if task in ("pathfinder", "path_x"):
    c.data.scale = "tokens"


def get_sweep() -> Iterator[dict[str, Any]]:
  """Returns every model."""
  for name in MODELS:
    yield {"mixer": name}
