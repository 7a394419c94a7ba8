"""Every mixer of `ssm/` at one small budget: sequential MNIST on a slice of the images, and selective copying.

Two layers of width 64, each mixer as it comes; 300 steps of 20 images, of 10,000, or 500 steps of 32 sequences of 72.
What learns most in so few steps need not be best at the end of a long training.

  python main.py --config configs/every_state_space.py:task=copying,mixer=mamba2 --workdir runs/mamba2
  ./dev sweep --config configs/every_state_space.py:dir=FOLDER --out runs/every_state_space
  ./dev report runs/every_state_space --across task
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import grammar, selective_copying, smnist

# A task's config file, and what makes it small.
TASKS = {
  "smnist": (smnist, "depth=2,batch=20,steps=300,warmup=50,held_out=50000,eval.batches=50"),
  "copying": (selective_copying, "length=72,batch=32,steps=500,stages=()"),
}
# A file of ssm/ holds a mixer if it has a class of its own name.
MIXERS = tuple(
  file.stem
  for file in sorted((Path(__file__).parents[1] / "ssm").rglob("*.py"))
  if re.search(rf"(?mi)^class {file.stem.replace('_', '')}\b", file.read_text())
)
# Read an image whole, from all sides.
IMAGES_ONLY = ("s4nd", "ssm2d")


def get_config(arg: str = "") -> ConfigDict:
  """`task`, and keys of the task's own config file; `dir` is for the images and may stand before either task."""
  task, arg = grammar.take(arg, "task", TASKS)
  module, small = TASKS[task]
  given = [f"{key}={text}" for key, text in grammar.pairs(arg) if task == "smnist" or key != "dir"]
  return module.get_config(",".join([small, *given]))


def get_sweep() -> Iterator[dict[str, Any]]:
  """Returns every task with every mixer that can do it."""
  for task in TASKS:
    for name in MIXERS:
      if task == "smnist" or name not in IMAGES_ONLY:
        yield {"task": task, "mixer": name}
