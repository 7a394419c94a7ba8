"""The runs of a sweep by setting: what was run but for its seed."""

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mistake import Mistake
from scripts import results
from scripts.plan import argument
from training import metrics

# overrides that only choose one of several equal runs
SEEDS = ("seed", "data.seed")
MIXER = "mixer"
# a loss that was not finite ends a run with this code: a result, and the worst there is
NOT_FINITE = 3


class Setting(NamedTuple):
  """Runs that differ in their seeds alone, whether or not they are done."""

  overrides: dict[str, Any]
  origin: str  # what was changed for all runs of one command, where a folder has runs of several commands
  runs: list[dict[str, Any]]

  @property
  def name(self) -> str:
    """Returns the overrides, after what belongs to the whole command."""
    return f"{self.origin}{argument(self.overrides) or 'default'}"

  @property
  def done(self) -> list[dict[str, Any]]:
    """Returns the runs that came to an end, a loss that was not finite included."""
    return [run for run in self.runs if run["status"] == "done" or run.get("exit") == NOT_FINITE]

  def values(self, metric: str) -> list[float]:
    """Returns the metric at the last evaluation of each finished run, nan where the loss was not finite."""
    ends = [(run["status"], [row[metric] for row in run["rows"] if metric in row]) for run in self.done]
    return [math.nan if status != "done" or points[-1] is None else points[-1] for status, points in ends]

  def at_the_end(self, metric: str) -> tuple[float, float | None]:
    """Returns mean and standard deviation of the values; no deviation of a single one, nan of none."""
    values = np.array(self.values(metric))
    return (float(values.mean()) if len(values) else math.nan, float(values.std(ddof=1)) if len(values) > 1 else None)

  def curve(self, metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns steps that all finished runs were evaluated at, and mean and standard deviation of the metric there."""
    curves = [{row["step"]: row[metric] for row in run["rows"] if metric in row} for run in self.done]
    # a run that diverged before its first evaluation has none
    curves = [curve for curve in curves if curve] or [{}]
    steps = np.array(sorted(set.intersection(*map(set, curves))), int)
    values = np.array([[curve[step] for step in steps.tolist()] for curve in curves], float)
    return steps, values.mean(0), values.std(0, ddof=1) if len(values) > 1 else np.zeros(len(steps))

  def quantity(self, name: str) -> float | None:
    """Returns an override, or the mean of a number of the summaries; None where there is no such number."""
    numbers = [self.overrides.get(name, run["summary"].get(name)) for run in self.done]
    known = [number for number in numbers if isinstance(number, (int, float))]
    return sum(known) / len(known) if known else None


def read(folder: Path) -> list[Setting]:
  """Reads the settings of a sweep, each of its runs with the `rows` of its metrics.

  Raises:
    Mistake: the folder has no results, or none of a finished run.
  """
  path = folder / results.RESULTS
  if not path.is_file():
    raise Mistake(f"{folder} has no {results.RESULTS}; give the --out folder of a sweep")
  # a line that stands twice, as in files that were joined, is one run
  runs = list({(run["folder"], argument(run["overrides"])): run for run in results.read(path)}.values())
  origins = _origins(runs)
  settings: dict[str, Setting] = {}
  for run in runs:
    rows = metrics.read_rows(folder / run["folder"] / "metrics.jsonl")
    number = lambda value: value is None or isinstance(value, (int, float))
    run["rows"] = [{key: value for key, value in row.items() if number(value)} for row in rows]
    overrides = {key: value for key, value in run["overrides"].items() if key not in SEEDS}
    setting = Setting(overrides, origins[run["origin"]], [])
    settings.setdefault(setting.name, setting).runs.append(run)
  if not any(setting.done for setting in settings.values()):
    raise Mistake(f"{path} has no finished run")
  return list(settings.values())


def _origins(runs: list[dict[str, Any]]) -> dict[str, str]:
  """Returns the text before the name of a setting, by origin; it is empty where all runs are of one command."""
  texts = {run["origin"]: " ".join(filter(None, [run["argument"], *run["flags"]])) for run in runs}
  if len(texts) == 1:
    return dict.fromkeys(texts, "")
  count = Counter(texts.values())

  def tell(origin: str, text: str) -> str:
    # the same command with another config has nothing else to tell it by
    edited = origin and (count[text] > 1 or not text)
    return f"{text} config {origin}".strip() if edited else text or "older"

  return {origin: f"[{tell(origin, text)}] " for origin, text in texts.items()}


def require_metric(settings: list[Setting], flag: str, metric: str) -> None:
  """Refuses a metric that a finished run does not have.

  Raises:
    Mistake: a run has no such metric; the message lists those it has.
  """
  for run in (run for setting in settings for run in setting.runs if run["status"] == "done"):
    if not any(metric in row for row in run["rows"]):
      choices = sorted({key for row in run["rows"] for key in row if key.startswith("eval/")})
      raise Mistake(f"{flag}={metric}: run {run['folder']} has none; choose from {choices}")


def on_validation(settings: list[Setting], metric: str) -> str:
  """Returns the same quantity on the validation set, or the metric itself where a finished run has no such set."""
  section, _, rest = metric.partition("/")
  name = f"{section}/validation/{rest.rpartition('/')[2]}"
  finished = [run for setting in settings for run in setting.done if run["status"] == "done"]
  return name if all(any(name in row for row in run["rows"]) for run in finished) else metric


def label(setting: Setting, by: str) -> str:
  """Returns the group of a setting: the value of an override; for the mixer, of a hybrid, its pattern and letters."""
  overrides = setting.overrides
  if by == MIXER and MIXER not in overrides:
    names = {key: value for key, value in overrides.items() if key == "pattern" or len(key) == 1}
    return setting.origin + (argument(names) or "default")
  return setting.origin + str(overrides.get(by, "default"))


def groups(settings: Iterable[Setting], by: str) -> dict[str, list[Setting]]:
  """Groups the settings by `label`; every one is in some group."""
  parts: dict[str, list[Setting]] = {}
  for setting in settings:
    parts.setdefault(label(setting, by), []).append(setting)
  return parts


def best(settings: Iterable[Setting], by: str, metric: str) -> dict[str, Setting]:
  """Returns the setting of each group with the best mean; nan is worse than anything but no value at all."""

  def rank(setting: Setting) -> tuple[bool, bool, float]:
    mean = metrics.sign(metric) * setting.at_the_end(metric)[0]
    return bool(setting.values(metric)), not math.isnan(mean), 0.0 if math.isnan(mean) else mean

  return {group: max(part, key=rank) for group, part in groups(settings, by).items()}


def require_override(settings: list[Setting], key: str | None) -> None:
  """Refuses an override that no run has.

  Raises:
    Mistake: no run overrides `key`.
  """
  choices = sorted({name for setting in settings for name in setting.overrides})
  if key not in (None, MIXER, *choices):
    raise Mistake(f"no run overrides {key!r}; choose from {choices}")


def against(settings: list[Setting], by: str, quantity: str, metric: str) -> dict[str, list[Setting]]:
  """Returns for each group the best setting at each value of a number, in order of that number; see `quantity`.

  Raises:
    Mistake: a finished setting has no such number.
  """
  finished = [setting for setting in settings if setting.values(metric)]
  for setting in finished:
    if setting.quantity(quantity) is None:
      known = {**setting.done[0]["summary"], **setting.overrides}
      choices = sorted(key for key, value in known.items() if isinstance(value, (int, float)))
      raise Mistake(f"--against={quantity}: run {setting.name} has no such number; choose from {choices}")
  lines = {}
  for group, part in groups(finished, by).items():
    sizes: dict[float, list[Setting]] = {}
    for setting in part:
      sizes.setdefault(setting.quantity(quantity) or 0.0, []).append(setting)
    lines[group] = [best(sizes[size], by, metric)[group] for size in sorted(sizes)]
  return lines
