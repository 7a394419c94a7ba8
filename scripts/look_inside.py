"""Draws what trained mixers have learned: kernels, eigenvalues, time steps, and what each output depends on.

  ./dev look DIR [DIR ...] --out FOLDER [--layer N] [--row N | --text TEXT] [--tokens N] [--step N]

DIR are workdirs of runs; their newest checkpoints are restored, or those of --step. The models read a row of the
validation set, row 0 if not told, or --text, up to --tokens. Of every layer but the channel mixers, or of --layer
alone, it draws what there is, all runs on one page:

  kernel.png       K of y_t = sum_s K_{t-s} x_s of mixers that are one: their linear part, tried on noise.
  eigenvalues.png  lambda in continuous time, and the eigenvalues of the step from state to state, here at every token.
  steps.png        dt of each token, where it is chosen by the token: Mamba, Mamba-2, Mamba-3.
  attention.png    the implicit attention of any mixer, ||dy_t / dx_s|| over channels: see `pictures/measure.py`.

Exit codes: 0 done; 2 a mistake in what was asked for, in one line.
"""

import argparse
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from arguments import Parser
from hybrids.model import side_inputs
from inference.tokenizer import has_text
from mistake import Mistake
from scripts.pictures import draw, measure
from training import platform
from training.run import Run


def read_row(run: Run, *, row: int, text: str | None, tokens: int) -> dict[str, np.ndarray]:
  """Returns one row for the model: `inputs`, and of a batch also `weights`, `reset` and `dt`, cut to at most `tokens`.

  Raises:
    ValueError: there is no such row, or a text for a task that has none; or a row is a pair of documents.
  """
  if run.task.head == "dual_encoder":
    raise Mistake(f"a row of {run.name} is a pair of documents, and one sequence is drawn; give a run of another task")
  if text is not None:
    if not has_text(run.task):
      raise Mistake(f"--text: task {type(run.task).__name__} of {run.name} has no text; use --row")
    if not text:
      raise Mistake("--text is empty; give something to read")
    return {"inputs": np.asarray(run.task.encode(text), np.int32)[None, :tokens]}
  name, rows = next(iter(run.task.eval_sets().items()))
  read = 0
  for batch in rows():
    if read <= row < read + len(batch["inputs"]):
      t = min(tokens, int(batch["lengths"][row - read]) if "lengths" in batch else tokens)
      wide = {key: batch[key][row - read] for key in ("inputs", "weights", "reset", "dt") if key in batch}
      return {key: value[None, :t] for key, value in wide.items() if value.ndim}
    read += len(batch["inputs"])
  raise Mistake(f"--row={row}: set {name!r} of {run.name} has rows 0 to {read - 1}")


def labels(run: Run, inputs: np.ndarray) -> list[str] | None:
  """Returns a few characters for each token; None for features."""
  if run.task.features is not None:
    return None
  if not has_text(run.task):
    return [str(token) for token in inputs]
  texts = [run.task.decode(inputs[i : i + 1]) for i in range(len(inputs))]
  plain = [text.decode("utf-8", "replace") if isinstance(text, bytes) else text for text in texts]
  return [text.replace("\n", "\u21b5").replace(" ", "\u2423") for text in plain]


def choose(run: Run, layers: list[measure.Layer], wanted: int | None) -> list[measure.Layer]:
  """Returns the layers to draw: the one that is wanted, or all that mix tokens.

  Raises:
    ValueError: there is no such layer.
  """
  chosen = [layer for layer in layers if layer.number == wanted]
  if wanted is None:
    chosen = [layer for layer in layers if not type(layer.mixer).__module__.startswith("hybrids.channel")]
  if not chosen:
    names = ", ".join(f"{layer.number} ({layer.name})" for layer in layers)
    raise Mistake(f"--layer={wanted}: {run.name} has layers {names}")
  return chosen


def views(run: Run, args: argparse.Namespace) -> list[draw.View]:
  """Measures everything that can be drawn of a run, one view a layer."""
  row = read_row(run, row=args.row, text=args.text, tokens=args.tokens)
  # off the mesh: one row is not worth splitting
  variables = jax.tree.map(jnp.asarray, jax.device_get(run.variables))
  layers = measure.layers(run.model, variables, {"inputs": row["inputs"], **side_inputs(row)})
  made = []
  for layer in choose(run, layers, args.layer):
    kernel = measure.kernel(layer)
    # one token's step is every token's where nothing depends on the token
    eigenvalues = measure.eigenvalues(layer, tokens=layer.x.shape[1] if kernel is None else 1)
    made.append(
      draw.View(
        title=f"{run.name}: layer {layer.number} ({layer.name})",
        tokens=labels(run, row["inputs"][0]),
        scored=row["weights"][0] > 0 if "weights" in row else None,
        kernel=kernel,
        poles=measure.poles(layer),
        eigenvalues=eigenvalues,
        steps=measure.steps(layer),
        attention=measure.attention(layer),
      )
    )
  return made


def main(argv: list[str] | None = None) -> int:
  """Draws. Exit code: 0, or 2 for a mistake in what was asked for."""
  parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("workdirs", type=Path, nargs="+", metavar="DIR", help="workdir of a run")
  parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
  parser.add_argument("--layer", type=int, help="the only one to draw, counted from 0")
  what = parser.add_mutually_exclusive_group()
  what.add_argument("--row", type=int, default=0, help="of the validation set")
  what.add_argument("--text", help="to read instead, for models of text")
  parser.add_argument(
    "--tokens", type=int, default=128, help="how many to read at most; the cost grows with the square"
  )
  parser.add_argument("--step", type=int, help="checkpoint to use; the newest by default")
  args = parser.parse_args(argv)
  try:
    if args.tokens < 1:
      raise Mistake(f"--tokens={args.tokens}; give at least 1")
    platform.prepare()
    devices = jax.devices()[:1]
    by_run = [views(Run.open(folder, step=args.step, devices=devices), args) for folder in args.workdirs]
    args.out.mkdir(parents=True, exist_ok=True)
    for path in draw.pages(by_run, args.out):
      print(path)
  except (Mistake, OSError) as error:
    print(f"look_inside: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(main())
