"""What HiPPO's matrix is worth: sequential MNIST by LSSL whose A starts from HiPPO or from random numbers.

Published: from 60 to 98 % (Gu et al. 2022, arXiv:2111.00396, sec. 2.2, of LSSL, Gu et al. 2021, arXiv:2110.13985). All
that differs is how A and B start (`A_init`), and whether they learn (`learn`): two layers of width 64, state 64, the
same images, steps and rate. S4D stands beside with the spectra that it may start from. The last evaluation reads the
10,000 test images.

Planned cost: 10 to 25 minutes a run on one core, 15 runs; 1,500 steps of 32 images, 0.9 epochs.

  python main.py --config configs/hippo_init.py:dir=FOLDER,mixer=lssl,m.A_init=random --workdir runs/random
  ./dev sweep --config configs/hippo_init.py:dir=FOLDER --out runs/hippo_init --jobs 2
  ./dev report runs/hippo_init --by m.A_init --across m.learn --metric eval/test/accuracy
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import smnist

SMALL = "mixer=lssl,depth=2,batch=32,steps=1500,warmup=100,cpu_devices=1,eval.every=0,save.every=500"


def get_config(arg: str = "") -> ConfigDict:
  """Keys of configs/smnist.py; `dir` holds the images."""
  return smnist.get_config(",".join(filter(None, [SMALL, arg])))


def get_sweep() -> Iterator[dict[str, Any]]:
  """HiPPO's four measures and random numbers, learned or fixed, three seeds of what is compared."""
  for seed in (0, 1, 2):
    for learn in ("all", "output"):
      for start in ("legs", "random"):
        yield {"mixer": "lssl", "m.learn": learn, "m.A_init": start, "seed": seed}
  for start in ("legt", "lagt", "fout"):
    yield {"mixer": "lssl", "m.learn": "all", "m.A_init": start, "seed": 0}
