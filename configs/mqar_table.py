"""Which mixers recall: MQAR at two sizes, eleven mixers, six learning rates, a budget in which they can learn.

The question of Arora et al. 2023 (arXiv:2312.04927, fig. 2) and 2024 (arXiv:2402.18668, fig. 2) at CPU size. Published:
attention 100 % at every size; Based, Gated DeltaNet and Mamba high with enough state; H3, Hyena and gated convolutions
low where the width is below the length. Two layers of width 64, no MLP, vocabulary 256, 7,000 steps of 16 rows, the
same curriculum of pairs for all. Based, GLA and RetNet, which have no convolution of their own, read a gated short
convolution before each layer, as in the papers' code; its letters count in `depth`. The rates stand from the middle
outwards, so that a sweep that is cut short has the likely ones.

Planned cost: 2 to 6 minutes a run of 64x4 and 3 to 12 of 128x16 on one core, 132 runs. `--only size=64x4 lr=2e-3
mixer=mamba,based --seeds 1,2` runs further seeds of the rates that were best.

  python main.py --config configs/mqar_table.py:size=128x16,mixer=mamba,lr=4e-3 --workdir runs/mqar_mamba
  ./dev sweep --config configs/mqar_table.py --out runs/mqar_table --jobs 2
  ./dev report runs/mqar_table --by mixer --across size --png mqar.png
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import grammar, mqar

# at 64x4 those with which a Mamba learned in 7,000 steps (docs/results/mqar.md); the larger size grows on from there
SIZES = {
  "64x4": "length=64,pairs=4,stages=((0,1),(500,2),(1500,4))",
  "128x16": "length=128,pairs=16,stages=((0,1),(300,2),(800,4),(1400,8),(2200,16))",
}
SMALL = "batch=16,steps=7000,warmup=100,eval.every=1000,save.every=7000,cpu_devices=1"
LEARNING_RATES = (3e-3, 2e-3, 4e-3, 1e-3, 8e-3, 5e-4)
# what a linear attention reads in the papers' code
CONV = {"pattern": "cm", "c": "base_conv", "depth": 4}
MIXERS: dict[str, dict[str, Any]] = {
  "softmax": {"m.heads": 1, "position": "learned"},
  "mamba": {"m.state": 16},
  "mamba2": {"m.state": 64},
  "based": {**CONV, "m.heads": 2, "m.key_size": 16},
  "gated_delta_net": {"m.heads": 2, "m.head_size": 32},
  "gla": {**CONV, "m.heads": 2},
  "retnet": {**CONV, "m.heads": 2},
  "s4d": {"m.state": 64},
  "h3": {},
  "hyena": {"m.max_len": 128},
  "gated_conv": {"m.taps": 64},
}


def get_config(arg: str = "") -> ConfigDict:
  """`size`: LENGTHxPAIRS, and keys of configs/mqar.py."""
  size, arg = grammar.take(arg, "size", SIZES)
  return mqar.get_config(",".join(filter(None, [SIZES[size], SMALL, arg])))


def get_sweep() -> Iterator[dict[str, Any]]:
  """Yields every mixer at each learning rate on both sizes, the likely rates first."""
  for lr in LEARNING_RATES:
    for size in SIZES:
      for mixer, fixed in MIXERS.items():
        yield {"size": size, "mixer": mixer, **fixed, "lr": lr}
