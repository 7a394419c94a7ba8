"""Associative recall by six mixers, one question a row (Fu et al. 2023, arXiv:2212.14052, sec. 3.1).

Published: attention and H3 above 97 %, S4D less (HazyResearch/safari, experiments.md). Two layers of width 64, no MLP,
the same 4,000 steps of 64 rows for all (in 3,000 of 32 attention does not leave the plateau), three rates, three seeds.
Guessing among the values is right at 10 %.

Planned cost: 1 to 3 minutes a run on one core, 54 runs.

  python main.py --config configs/recall_table.py:mixer=h3 --workdir runs/recall_h3
  ./dev sweep --config configs/recall_table.py --out runs/recall_table --jobs 2
  ./dev report runs/recall_table --png recall.png
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import associative_recall

SMALL = "width=64,depth=2,embed_std=0.125,batch=64,steps=4000,warmup=100,b2=0.999,cpu_devices=1"
SMALL += ",eval.every=1000,save.every=4000"
MIXERS: dict[str, dict[str, Any]] = {
  "s4d": {},
  "softmax": {"m.heads": 1, "position": "learned"},
  "h3": {},
  "mamba": {},
  "hyena": {"m.max_len": 64},
  "gated_delta_net": {"m.heads": 2, "m.head_size": 16},
}


def get_config(arg: str = "") -> ConfigDict:
  """Keys of configs/associative_recall.py."""
  return associative_recall.get_config(",".join(filter(None, [SMALL, arg])))


def get_sweep() -> Iterator[dict[str, Any]]:
  """Yields each mixer at each rate, seed by seed."""
  for seed in (0, 1, 2):
    for lr in (1e-3, 2e-3, 5e-4):
      for mixer, fixed in MIXERS.items():
        yield {"mixer": mixer, **fixed, "lr": lr, "seed": seed}
