"""A ladder of models: one config at several sizes, tokens in proportion to parameters, and the law of their losses.

  ./dev ladder --config configs/bytes.py:mixer=mamba --out runs/ladder --rungs 32,48,64,96 [--key width]
      [--tokens_per_parameter 20] [--metric eval/validation/loss] [--jobs N] [--beside DIR …] [-- --config.a.b=v …]

Each rung sets --key (width, depth, m.state …) and trains for tokens_per_parameter × parameters tokens, 20 in Hoffmann
et al. 2022 (Chinchilla, arXiv:2203.15556, table 3), whole batches. Their law L(N, D) = E + A/N^α + B/D^β has one term
left where D grows with N; it is fitted as L = E + A N^-α by scipy's curve_fit, E at least 0, from four rungs on. The
runs are a sweep: the same command goes on where it was, and prints the table and the fit of what is done.
OUT/ladder.json holds both, OUT/ladder.png draws them, beside the ladders in the folders of --beside. Few rungs fit any
law: read the standard errors.
"""

import argparse
import json
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import ending
from arguments import Parser, at_least
from mistake import Mistake
from scripts import results, sweep
from scripts.match import Models, markdown
from scripts.plan import Run, plan

LEAST = 4
LADDER = "ladder.json"


class Rung(NamedTuple):
  """One model of the ladder."""

  size: int
  parameters: int
  steps: int
  tokens: int


class Law(NamedTuple):
  """L = E + A N^-α with standard errors, infinite where the rungs do not determine it."""

  E: float
  A: float
  alpha: float
  errors: tuple[float, float, float]

  def __call__(self, parameters: Any) -> Any:
    """Returns the loss of models with so many parameters."""
    return self.E + self.A * np.asarray(parameters, float) ** -self.alpha


def rungs(config: str, flags: Sequence[str], key: str, sizes: Sequence[int], ratio: float) -> list[Rung]:
  """Returns how many steps each size trains.

  Raises:
    Mistake: a size is not above the one before, or what the config says about one.
  """
  if list(sizes) != sorted(set(sizes)) or not sizes or min(sizes) < 1:
    raise Mistake(f"--rungs {','.join(map(str, sizes))}: give whole numbers that grow, e.g. 32,48,64,96")
  if not 0 < ratio < math.inf:
    raise Mistake(f"--tokens_per_parameter {ratio}: give a number above 0, e.g. 20")
  models = Models(config, flags)
  made = []
  for size in sizes:
    parameters = int(models.measure({key: size}, "parameters"))
    a_step = models.tokens({key: size})
    if ratio * parameters / a_step >= 2**31:
      raise Mistake(f"--tokens_per_parameter {ratio}: size {size} would train for more than 2^31 steps; give less")
    steps = max(math.ceil(ratio * parameters / a_step), 1)
    made.append(Rung(size, parameters, steps, steps * a_step))
  return made


def fit(parameters: Sequence[float], losses: Sequence[float]) -> Law | None:
  """Fits the law to the losses by least squares; returns None of fewer than LEAST, or where it does not converge."""
  from scipy.optimize import OptimizeWarning, curve_fit

  N, L = np.asarray(parameters, float), np.asarray(losses, float)
  if len(N) < LEAST:
    return None
  # in units of the smallest model, or A spans many orders of magnitude
  unit = N.min()
  law = lambda n, E, a, alpha: E + a * n**-alpha
  start = (0.9 * L.min(), max(L.max() - 0.9 * L.min(), 1e-6), 0.3)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore", OptimizeWarning)
      (E, a, alpha), covariance = curve_fit(law, N / unit, L, start, bounds=((0, 0, 0), np.inf), maxfev=20_000)
  except RuntimeError:
    return None
  A = a * unit**alpha
  # A moves with α as well as with a, the more the further `unit` is from one parameter
  slope = np.array([unit**alpha, A * np.log(unit)])
  variances = [covariance[0, 0], slope @ covariance[1:, 1:] @ slope, covariance[2, 2]]
  of_E, of_A, of_alpha = np.sqrt(np.nan_to_num(variances, nan=np.inf, posinf=np.inf)).tolist()
  return Law(float(E), float(A), float(alpha), (of_E, of_A, of_alpha))


def settings(made: Sequence[Rung], key: str) -> list[dict[str, Any]]:
  """Returns what each run of the sweep changes."""
  return [{key: rung.size, "steps": rung.steps} for rung in made]


def losses(folder: Path, runs: Sequence[Run], metric: str) -> list[float | None]:
  """Returns the metric at the end of each run, None where it is not done.

  Raises:
    Mistake: a finished run has no such metric.
  """
  measured: dict[str, float] = {}
  digests = [run.digest for run in runs]
  for run in results.read(folder / results.RESULTS):
    # the folder may have runs of the same sizes with other settings
    if run["status"] != "done" or run["digest"] not in digests:
      continue
    values = run["summary"].get("metrics", {})
    if metric not in values:
      choices = [name for name in values if name.startswith("eval/")]
      raise Mistake(f"--metric {metric}: run {run['name']} has none; choose from {choices}")
    measured[run["digest"]] = values[metric]
  return [measured.get(digest) for digest in digests]


def table(made: Sequence[Rung], values: Sequence[float | None], key: str, law: Law | None) -> str:
  """Writes one line a rung."""
  rows = []
  for rung, value in zip(made, values):
    numbers = [f"{number:,}" for number in rung]
    fitted = f"{law(rung.parameters):.4f}" if law else "–"
    rows.append([*numbers, "–" if value is None else f"{value:.4f}", fitted])
  return markdown([key, "parameters", "steps", "tokens", "loss", "fitted"], rows)


def describe(law: Law | None, done: int) -> str:
  """Writes the law in words."""
  if law is None:
    return f"no fit: {done} rungs are done, {LEAST} are needed" if done < LEAST else "no fit: it does not converge"
  parts = [f"{name} = {value:.4g} ± {error:.2g}" for name, value, error in zip(("E", "A", "α"), law, law.errors)]
  return f"L = E + A N^-α: {', '.join(parts)}"


def draw(path: Path, ladders: Mapping[str, Mapping[str, Any]], metric: str) -> None:
  """Draws the losses of each ladder, as ladder.json has them, over the parameters, both logarithmic, and its law."""
  from matplotlib.figure import Figure

  from scripts.pictures.save import save

  figure = Figure(figsize=(6, 4), layout="constrained")
  axes = figure.add_subplot(xlabel="parameters", ylabel=metric, xscale="log", yscale="log")
  for number, (name, facts) in enumerate(ladders.items()):
    points = [(rung["parameters"], rung["loss"]) for rung in facts["rungs"] if rung["loss"] is not None]
    axes.plot(*zip(*points), "o", color=f"C{number}", label=name)
    if facts["law"]:
      law = Law(**facts["law"])
      over = np.geomspace(points[0][0], 4 * points[-1][0], 100)
      axes.plot(over, law(over), color=f"C{number}", label=f"{law.E:.3g} + {law.A:.3g} N^-{law.alpha:.3g}")
  axes.legend()
  axes.grid(alpha=0.3, which="both")
  save(figure, path, dpi=110)


def beside(folders: Sequence[Path], metric: str) -> dict[str, Any]:
  """Reads what other ladders left, by the names of their folders.

  Raises:
    Mistake: a folder has no finished rung, or another metric.
  """
  found = {}
  for folder in folders:
    try:
      facts = json.loads((folder / LADDER).read_text())
      usable = any(rung["loss"] is not None for rung in facts["rungs"])
    except (OSError, ValueError, TypeError, KeyError) as error:
      raise Mistake(f"--beside {folder}: it has no {LADDER} that ./dev ladder wrote ({error})") from None
    if not usable or facts.get("metric") != metric:
      raise Mistake(f"--beside {folder}: its {LADDER} has {facts.get('metric')!r} of its rungs done, not {metric!r}")
    found[folder.name] = facts
  return found


def parse(argv: list[str] | None) -> argparse.Namespace:
  """Parses the command line; what follows `--` is passed on to main.py."""
  form = argparse.RawDescriptionHelpFormatter
  parser = Parser(prog="ladder", description=__doc__, formatter_class=form)
  parser.add_argument("--config", required=True, help="config file, as main.py takes it")
  parser.add_argument("--out", required=True, type=Path, help="folder of all runs")
  parser.add_argument("--rungs", required=True, help="values of --key, smallest first")
  parser.add_argument("--key", default="width", help="what the rungs change")
  parser.add_argument("--tokens_per_parameter", type=float, default=20.0)
  parser.add_argument("--metric", default="eval/validation/loss")
  parser.add_argument("--jobs", type=at_least(1), default=1, help="runs at once")
  parser.add_argument("--beside", nargs="+", default=[], type=Path, help="folders of other ladders to draw")
  parser.add_argument("--dry-run", action="store_true", help="print the rungs and run nothing")
  parser.add_argument("flags", nargs="*", help="further flags of main.py, after --")
  return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
  """Runs what is not done, and fits what is. Exit code: as a sweep's."""
  args = parse(argv)
  try:
    try:
      sizes = [int(size) for size in args.rungs.split(",")]
    except ValueError:
      raise Mistake(f"--rungs {args.rungs}: give whole numbers, e.g. 32,48,64,96") from None
    others = beside(args.beside, args.metric)
    made = rungs(args.config, args.flags, args.key, sizes, args.tokens_per_parameter)
    print(table(made, [None] * len(made), args.key, None), flush=True)
    if args.dry_run:
      return 0
    command = ["--config", args.config, "--out", str(args.out), "--jobs", str(args.jobs), "--", *args.flags]
    runs = plan(args.config, args.flags, settings(made, args.key))
    code = sweep.run_in(runs, sweep.parse(command))
    values = losses(args.out, runs, args.metric)
    done = [(rung.parameters, value) for rung, value in zip(made, values) if value is not None]
    law = fit(*zip(*done)) if done else None
    print(f"{table(made, values, args.key, law)}\n{describe(law, len(done))}")
    rows = [rung._asdict() | {"loss": value} for rung, value in zip(made, values)]
    facts = {"metric": args.metric, "rungs": rows, "law": law and law._asdict()}
    with ending.unfinished(args.out / LADDER) as partial:
      partial.write_text(json.dumps(facts, indent=1) + "\n")
    if done:
      draw(args.out / "ladder.png", {args.out.name: facts} | others, args.metric)
    return code
  except (Mistake, OSError) as error:
    print(f"ladder: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
  sys.exit(main())
