"""Saves every fixture of released models from here, lets transformers load it, and compares its logits with ours.

  python -m scripts.golden.round_trip [NAME …]

Needs torch and transformers beside the project's own libraries. A line for each folder of tests/golden/hf and of
../shared/golden_hf: the model type, the largest distance of the logits that transformers makes of 37 and 128 tokens
from ours, with ours from those of the fixture, and the largest logit. Tensors that transformers misses, does not know
or finds of another shape are an error; but a model of images, too, is saved without the part that reads them.
"""

import json
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

from interop import families, hf
from scripts.golden.released import FOLDER, load

SHARED = FOLDER.parents[3] / "shared" / "golden_hf"


def compare(folder: Path) -> str:
  """Returns the line of one fixture."""
  import torch

  model, variables, config = hf.load(folder)
  with np.load(folder / "reference.npz", allow_pickle=False) as file:
    reference = dict(file)
  long, short = reference["input_ids_128"], reference["input_ids_37"]
  # what follows a row's end does not reach back
  rows = np.concatenate([long, np.pad(short, ((0, 0), (0, long.shape[1] - short.shape[1])))])
  ours = np.asarray(jax.jit(model.apply)(variables, rows))
  with tempfile.TemporaryDirectory() as directory:
    hf.save(Path(directory) / "out", model, variables, config)
    skipped = families.find(config["model_type"], str(folder)).SKIPPED
    theirs = load(Path(directory) / "out", config["architectures"][0], without=skipped)
  with torch.no_grad():
    run = lambda tokens: theirs(torch.tensor(tokens, dtype=torch.long), use_cache=False).logits.float().numpy()
    logits = {length: run(reference[f"input_ids_{length}"]) for length in (37, 128)}
  mine = {37: ours[len(long) :, : short.shape[1]], 128: ours[: len(long)]}
  far = lambda other: max(np.abs(mine[length] - other[length]).max() for length in mine)
  recorded = {length: reference[f"logits_{length}"] for length in mine}
  size = max(np.abs(mine[length]).max() for length in mine)
  return f"{config['model_type']:18} {folder.name:22} {far(logits):.1e} {far(recorded):.1e} {size:.1f}"


def main(names: list[str]) -> None:
  """Prints the lines of the fixtures that are named, or of all."""
  entries = sorted(path.parent for root in (SHARED, FOLDER) for path in root.glob("*/config.json"))
  known = families.names()
  for folder in entries:
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    if kind in known and (not names or folder.name in names):
      print(compare(folder), flush=True)


if __name__ == "__main__":
  main(sys.argv[1:])
