"""Released checkpoints, in and out, without PyTorch and without pickle.

  python -m interop.hf check FOLDER                           which model it holds, and whether all of it is understood
  python -m interop.hf load FOLDER --workdir DIR [--config FILE.py[:key=value,…]]
                                                              a run that main.py lets write, evaluates or trains on
  python -m interop.hf save DIR FOLDER [--step N] [--form npz]
                                                              the model of a run, for transformers if it came from there

model, variables, config = hf.load("downloads/mamba-130m-hf")     # any family of interop/families
model.apply(variables, tokens)                                    # logits, b t v
hf.save("out", model, variables, config)                          # a folder that transformers loads
"""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ending
import terminal
from arguments import Parser

if __name__ == "__main__":
  # before the imports, which take seconds
  ending.begin(75)

import jax  # noqa: E402

from hybrids.model import Model  # noqa: E402
from interop import families, own, plan, tensors  # noqa: E402
from interop.families import rwkv7_pth  # noqa: E402
from mistake import Mistake  # noqa: E402
from training import sharding  # noqa: E402

# bytes of one file, as transformers cuts them
SHARD = 5e9
FORMS = ("safetensors", "npz")


def load(
  path: str | Path, dtype: str = "float32", mesh: jax.sharding.Mesh | None = None
) -> tuple[Model, dict[str, Any], dict[str, Any]]:
  """Reads a local folder with a config.json and safetensors, one tensor at a time.

  Args:
    dtype: "float32" or "bfloat16", in which the model computes and keeps its parameters; those that decide how long a
      state remembers stay float32.
    mesh: shards the variables as training does; each device's part is read by itself.

  Returns:
    The model, its variables, and the values of config.json.

  Raises:
    Mistake: the family or a key of the config is unknown, a file is damaged, or config and tensors disagree.
  """
  folder = Path(path).expanduser()
  config = read_config(folder)
  if config.get("model_type") == own.MODEL_TYPE:
    return own.load(folder, config, dtype)
  made = plan.make(config, str(folder / tensors.CONFIG), dtype)
  opened = tensors.Tensors(folder, getattr(made.family, "RENAMED", ()))
  try:
    made.check(opened)
    places = None if mesh is None else plan.leaves(sharding.of_variables(made.boxed, mesh))
    return made.model, made.fill(opened, places), config
  finally:
    opened.close()


def read_config(folder: Path) -> dict[str, Any]:
  """Returns the values of config.json; where there is none, those of a family that knows its models by their tensors.

  Raises:
    Mistake: there is none, and the tensors are of no such family.
  """
  if not (folder / tensors.CONFIG).exists() and (folder / tensors.SINGLE).is_file():
    with contextlib.closing(tensors.Tensors(folder)) as opened:
      if found := rwkv7_pth.config_of(opened.shapes):
        return found
  return tensors.read_json(folder / tensors.CONFIG)


def save(
  path: str | Path,
  model: Model,
  variables: Mapping[str, Any],
  config: Mapping[str, Any] | None = None,
  beside: Sequence[Path] = (),
  form: str = "safetensors",
) -> None:
  """Writes a folder with a config.json and safetensors, which appears once it is complete.

  Args:
    config: the values of the config.json with which `load` found the model: the folder is then one that transformers
      loads. None writes our own names, which `load` alone reads, for any model.
    beside: more files, such as a tokenizer's, of which the folder gets copies.
    form: "safetensors", or "npz" for NumPy's own files, under our own names in any case.

  Raises:
    Mistake: the folder is not empty or cannot be written, or the model is not that of the config.
  """
  folder = Path(path).expanduser()
  if form not in FORMS:
    raise Mistake(f"form={form!r}; choose from {', '.join(FORMS)}")
  if config is None or form == "npz" or config.get("model_type") == own.MODEL_TYPE:
    own.save(folder, model, variables, beside, form)
    return
  made = plan.make(config, str(folder / tensors.CONFIG), model.dtype)
  made.check_variables(variables)
  # which their own code reads as an argument of theirs, where there is no model_type
  kind = {"dtype": "float32"} if "model_type" in config else {}
  tensors.write(folder, {**config, **kind}, made.tensors(variables), SHARD, beside)


def check(path: str | Path) -> str:
  """Says in one line what a folder holds, once every tensor has its place; no numbers of a released one are read.

  Raises:
    Mistake: as `load`.
  """
  folder = Path(path).expanduser()
  config = read_config(folder)
  if config.get("model_type") == own.MODEL_TYPE:
    model, variables, _ = own.load(folder, config, "float32")
    numbers = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return f"{folder}: a model written here, width {model.width}, {numbers:,} parameters; all tensors are understood"
  made = plan.make(config, str(folder / tensors.CONFIG), "float32")
  opened = tensors.Tensors(folder, getattr(made.family, "RENAMED", ()))
  try:
    made.check(opened)
    numbers = sum(leaf.size for name, leaf in made.shapes.items() if name.startswith("params:"))
    body = made.model.body.get("stack", made.model.body)
    return (
      f"{folder}: {families.model_type(config)}, width {made.model.width}, pattern {body['pattern']}, "
      f"depth {body['depth']}, {numbers:,} parameters; all {len(opened.shapes)} tensors are understood"
    )
  finally:
    opened.close()


def main(arguments: Sequence[str]) -> int:
  """Does what the command line asks for, and returns the exit code: 2 for a mistake, in one line."""
  parser = Parser(prog="python -m interop.hf", description="Released checkpoints, in and out.")
  commands = parser.add_subparsers(dest="command", required=True)
  commands.add_parser("check", help="says what a folder holds").add_argument("folder")
  loading = commands.add_parser("load", help="makes a run of a released model")
  loading.add_argument("folder")
  loading.add_argument("--workdir", required=True, help="folder of the run")
  loading.add_argument(
    "--config", default=None, help="data and optimizer of the run, FILE.py[:key=value,…]; noise for data by default"
  )
  loading.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
  saving = commands.add_parser("save", help="writes the model of a run")
  saving.add_argument("workdir")
  saving.add_argument("folder")
  saving.add_argument("--form", default="safetensors", choices=FORMS, help="npz has our own names")
  saving.add_argument("--step", type=int, default=None, help="checkpoint; the newest by default")
  given = parser.parse_args(arguments)
  # a run joins data, model and training, which reading a folder does not need
  from interop import workdir

  try:
    if given.command == "check":
      print(check(given.folder))
    elif given.command == "load":
      run = workdir.adopt(given.folder, given.config, given.workdir, dtype=given.dtype)
      print(f"{given.workdir} holds the model at step {run.step}; go on with main.py --workdir {given.workdir}")
    else:
      workdir.export(given.workdir, given.folder, step=given.step, form=given.form)
      print(f"{given.folder} holds the model of {given.workdir}")
  except (Mistake, OSError) as error:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(terminal.exit_code(main(sys.argv[1:]), "error"))
