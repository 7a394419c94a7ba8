"""Models of equal cost: what a config's models count, and the size of each that meets a budget.

A budget is a number of parameters, of bytes of one sequence's state at the task's length, or of operations (forward,
per token). `solve` finds the whole number, by default the width, that brings a model nearest to it. All is counted from
shapes.
"""

import json
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn

import ending
from data.task import build_task
from hybrids import mixer as mixer_lib
from hybrids import sections
from hybrids.model import build_model
from inference import count
from mistake import Mistake
from scripts.plan import argument, digest, joined
from training import flags as flags_lib
from training import flops, schedule
from training import state as state_lib

QUANTITIES = ("parameters", "state", "flops")
UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
# sizes are tried in multiples of these, the first that meets the budget counts: devices like round numbers
GRAINS = (8, 4, 2, 1)
# sizes between two, of which as many are tried where the model cannot have the one in the middle
NEAR = 16
# what `solve` doubles up to; beyond it the quantity does not depend on the size
LARGEST = 2**16
FILE = "matched.json"


class Budget(NamedTuple):
  """Holds what all models shall cost, and the key whose value is solved for."""

  quantity: str
  value: float
  key: str
  tolerance: float


class Matched(NamedTuple):
  """A setting, and the size that meets the budget or why none does."""

  setting: dict[str, Any]
  size: int | None
  value: float | None
  reason: str


def budget(text: str, key: str, tolerance: float) -> Budget:
  """Reads `--match parameters=100k`.

  Raises:
    Mistake: no such quantity, no number, or a tolerance that is not between 0 and 1.
  """
  quantity, _, number = text.partition("=")
  if quantity not in QUANTITIES:
    raise Mistake(f"--match {text!r}: choose from {', '.join(f'{each}=VALUE' for each in QUANTITIES)}")
  try:
    value = float(number.rstrip("".join(UNITS))) * UNITS.get(number[-1:], 1)
  except ValueError:
    value = 0.0
  if not 0 < value < float("inf"):
    raise Mistake(
      f"--match {text!r}: {number!r} is no positive number; write e.g. {quantity}=100000 or {quantity}=100k"
    )
  if not 0 < tolerance < 1:
    raise Mistake(f"--tolerance {tolerance}: give a share between 0 and 1, e.g. 0.02")
  return Budget(quantity, value, key, tolerance)


class Models:
  """The models of a config file's settings, counted; tasks are built once for all that share them."""

  def __init__(self, config: str, flags: Sequence[str]):
    self._config, self._flags = config, list(flags)
    self._tasks: dict[str, Any] = {}

  def sections(self, setting: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the setting's data and model sections as plain dicts, flags of main.py included.

    Raises:
      Mistake: what the config or the flags say about it.
    """
    whole = self._parsed(setting)
    return {"data": whole["data"], "model": whole["model"]}

  def _parsed(self, setting: Mapping[str, Any]) -> dict[str, Any]:
    command = ["sweep", f"--config={joined(self._config, setting)}", "--mode=count", *self._flags]
    return flags_lib.parse(command).config.to_dict()

  def build(self, setting: Mapping[str, Any]) -> tuple[Any, Any]:
    """Builds the setting's task and model; raises what they say about their settings."""
    parts = self.sections(setting)
    name = json.dumps(parts["data"], sort_keys=True, default=repr)
    if name not in self._tasks:
      self._tasks[name] = build_task(**parts["data"])
    return self._tasks[name], build_model(self._tasks[name], **parts["model"])

  def check(self, setting: Mapping[str, Any]) -> None:
    """Raises a Mistake where a key, a name or a number of the setting is wrong, without building its task."""
    whole = self._parsed(setting)
    letters = sections.complete(whole["model"])["body"].get("letters", {})
    for letter in letters.values():
      mixer = letter.get("mixer", letter)
      fields = {key: value for key, value in mixer.items() if key != "name"}
      mixer_lib.check_fields(mixer_lib.find(mixer["name"]), {"width": 1, **fields}, f"mixer {mixer['name']!r}")
    keys = ("lr", "schedule", "warmup", "final_lr", "decay")
    schedule.learning_rate(steps=whole["steps"], **{key: whole["optimizer"][key] for key in keys})

  def tokens(self, setting: Mapping[str, Any]) -> int:
    """Counts the tokens of one update, padding included."""
    task, _ = self.build(setting)
    rows = task.batch * self._parsed(setting)["optimizer"].get("accumulate", 1)
    return state_lib.tokens(state_lib.example(task, rows))

  def measure(self, setting: Mapping[str, Any], quantity: str) -> float:
    """Measures one of QUANTITIES.

    Raises:
      Mistake: the model cannot be built, or its state is asked for and it has none.
    """
    task, model = self.build(setting)
    if quantity == "state":
      if model.STATE == "none":
        raise Mistake("its state is the whole input")
      return count.state_bytes(model, task.length)
    variables = state_lib.variables_shape(model, task)
    if quantity == "parameters":
      return count.size(variables["params"])
    return flops.per_token(model, nn.meta.unbox(variables), state_lib.example(task, 1))

  def counts(self, setting: Mapping[str, Any]) -> dict[str, Any]:
    """Counts all that --mode count shows of a setting."""
    task, model = self.build(setting)
    return count.count(model, task)


def solve(value_at: Callable[[int], float | None], target: float, start: int, tolerance: float) -> int | None:
  """Finds the size whose value is nearest to `target`, the roundest where several are within `tolerance`.

  Args:
    value_at: grows with the size; None where there is no such model. It is asked once for each size.
    start: a size that there is, to double and halve from.
  Returns:
    None where `start` has no value.
  """
  known: dict[int, float] = {}

  def at(size: int) -> float | None:
    if size not in known and (value := value_at(size)) is not None:
      known[size] = value
    return known.get(size)

  if at(start) is None:
    return None
  size = start
  while (value := at(size)) is not None and value < target and size < LARGEST:
    size *= 2
  size = start
  while (value := at(size)) is not None and value > target and size > 1:
    size //= 2
  for grain in GRAINS:
    while True:
      low = max((size for size, value in known.items() if value <= target), default=0)
      high = min((size for size, value in known.items() if value >= target), default=low)
      inside = range((low // grain + 1) * grain, high, grain)
      middle = (low + high) / 2
      near = sorted(inside, key=lambda size: abs(size - middle))[:NEAR]
      if next((size for size in near if at(size) is not None), None) is None:
        break
    best = min(known, key=lambda size: abs(known[size] - target))
    if abs(known[best] - target) <= tolerance * target:
      return best
  return best


def match(models: Models, settings: Sequence[dict[str, Any]], wanted: Budget, folder: Path | None) -> list[Matched]:
  """Finds each setting's size; settings of the same model and data are solved once.

  Sizes that were found are kept in FILE of `folder`, if there is one: the same command finds them again, if they still
  meet the budget.
  """
  stored = _stored(folder / FILE) if folder else {}
  matched: dict[str, Matched] = {}
  rows = []
  for setting in settings:
    try:
      if wanted.key in setting:
        raise Mistake(f"it sets {wanted.key}, which --match solves for; leave it out or --solve another key")
      parts = models.sections(setting)
      # equal models of unequal data may have unequal states; seeds change neither
      parts["data"].pop("seed", None)
      name = digest(parts, wanted._replace(tolerance=0.0))
      if name not in matched:
        matched[name] = _matched(models, setting, wanted, stored.get(name))
      rows.append(matched[name]._replace(setting=setting))
    except Mistake as error:
      rows.append(Matched(setting, None, None, reason(error)))
  stored |= {name: row.size for name, row in matched.items() if row.size and not row.reason}
  if folder:
    folder.mkdir(parents=True, exist_ok=True)
    with ending.unfinished(folder / FILE) as partial:
      partial.write_text(json.dumps(stored, indent=1))
  return rows


def _stored(path: Path) -> dict[str, int]:
  """Returns the sizes that were found before; none of a file that is damaged, as they are found again."""
  try:
    stored = json.loads(path.read_text())
  except (OSError, ValueError, RecursionError):
    return {}
  sizes = stored.items() if isinstance(stored, dict) else ()
  return {name: size for name, size in sizes if isinstance(size, int) and size > 0}


def _matched(models: Models, setting: dict[str, Any], wanted: Budget, stored: int | None) -> Matched:
  reasons: list[str] = []

  def value_at(size: int) -> float | None:
    try:
      return models.measure(setting | {wanted.key: size}, wanted.quantity)
    except Mistake as error:
      reasons.append(reason(error))
      return None

  off = lambda value: abs(value - wanted.value) / wanted.value
  if stored and (value := value_at(stored)) is not None and off(value) <= wanted.tolerance:
    return Matched(setting, stored, value, "")
  start = stored or _default(models, setting, wanted.key)
  size = solve(value_at, wanted.value, start, wanted.tolerance)
  if size is None:
    return Matched(setting, None, None, reasons[0])
  value = models.measure(setting | {wanted.key: size}, wanted.quantity)
  far = off(value) > wanted.tolerance
  return Matched(setting, size, value, f"no {wanted.key} comes within {wanted.tolerance:.1%}" if far else "")


def reason(error: Mistake) -> str:
  """Returns what a mistake says in one line, without long lists and without what main.py puts before it."""
  return textwrap.shorten(re.sub(r"^flag --config=\S+: ", "", str(error)), 160, placeholder=" …")


def _default(models: Models, setting: dict[str, Any], key: str) -> int:
  """Returns the size that the config gives, to start from."""
  model = models.sections(setting)["model"]
  sizes = {"width": model.get("width"), "depth": model["body"].get("depth")}
  letter, _, field = key.partition(".")
  if letter in (letters := model["body"].get("letters", {})) and field:
    sizes[key] = letters[letter].get("mixer", letters[letter]).get(field)
  # 16 divides into the heads of most mixers
  size = sizes.get(key)
  return size if isinstance(size, int) and size > 0 else 16


def table(rows: Sequence[Matched], wanted: Budget) -> str:
  """Writes one line a model: its size, what it counts, and how far that is from the budget."""
  lines: dict[str, list[str]] = {}
  for row in rows:
    name = argument({key: value for key, value in row.setting.items() if not is_training(key)}) or "default"
    if row.size is None or row.value is None:
      cells = ["–", "–", row.reason]
    else:
      cells = [str(row.size), f"{row.value:,.0f}", f"{row.value / wanted.value - 1:+.1%} {row.reason}".strip()]
    lines[name] = [name, *cells]
  return markdown(["model", wanted.key, wanted.quantity, f"of {wanted.value:,.0f}"], list(lines.values()))


def counted(rows: Sequence[Mapping[str, Any]]) -> str:
  """Writes one line a setting of what --mode count counted."""
  lines = []
  for row in rows:
    if "error" in row:
      lines.append([row["name"], "–", "–", "–", "–", row["error"]])
      continue
    # the state at the task's own length comes first
    state = next((f"{value:,}" for key, value in row.items() if key.startswith("state/bytes@")), "none")
    numbers = [f"{row[key]:,.0f}" for key in ("parameters", "flops/forward", "memory/training")]
    lines.append([row["name"], numbers[0], state, *numbers[1:], ""])
  head = ["setting", "parameters", "state bytes", "FLOPs per token", "bytes of training", "reason"]
  width = len(head) if any(line[-1] for line in lines) else len(head) - 1
  return markdown(head[:width], [line[:width] for line in lines])


def is_training(key: str) -> bool:
  """Returns whether an override changes how a model is trained and not what it is."""
  return key in ("seed", "data.seed", "lr", "steps", "batch", "weight_decay") or key.startswith(("optimizer.", "save."))


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Writes a table whose columns are as wide as their widest cell."""
  widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
  lines = [head, ["-" * width for width in widths], *rows]
  return "\n".join(f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, widths))} |" for cells in lines)
