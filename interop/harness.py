"""Language models for lm-evaluation-harness, without PyTorch; and LAMBADA without the harness.

  python -m interop.harness MODEL --lambada FILE.jsonl [--limit N] [--through lm_eval]
  python -m interop.harness MODEL --tasks NAME,… [--include FOLDER] [--limit N]

MODEL is the folder of a run, or of a released model with its tokenizer. The second form, and `--through lm_eval`, need
the package lm_eval. From Python, `as_lm(Scorer(run.text_model))` is a model for `lm_eval.simple_evaluate`.
"""

import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ending
import terminal
from arguments import Parser, at_least

if __name__ == "__main__":
  # before the imports, which take seconds
  ending.begin()

from inference import tokenizer  # noqa: E402
from inference.text_model import TextModel  # noqa: E402
from interop import hf, lambada  # noqa: E402
from interop.scores import Scorer  # noqa: E402
from mistake import Mistake  # noqa: E402
from training.run import Run  # noqa: E402

# what a request may ask for besides, and what it means to `inference.completions.complete`
DRAWING = {"temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens")
KNOWN = {"until", "do_sample", *DRAWING, *LENGTHS}
# tokens of a text where the request does not say how many
LONGEST = 256


class Methods:
  """The three methods that the harness calls, for requests with `args`.

  Args:
    scorer: of the model.
  """

  def __init__(self, scorer: Scorer):
    super().__init__()
    self._scorer = scorer

  def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
    """Scores continuations; `args` are a context and its continuation."""
    scores = self._scorer.continuations([request.args[:2] for request in requests])
    return [(score.logprob, score.greedy) for score in scores]

  def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
    """Scores whole texts; `args` are one text."""
    return self._scorer.texts([request.args[0] for request in requests])

  def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
    """Continues texts; `args` are a context and the settings of lm_eval: until, max_gen_toks, do_sample, temperature.

    Raises:
      Mistake: a request has settings that are not known here.
    """
    together: dict[str, list[int]] = {}
    for number, request in enumerate(requests):
      together.setdefault(json.dumps(settings(request.args[1]), sort_keys=True), []).append(number)
    texts: dict[int, str] = {}
    for key, numbers in together.items():
      found = self._scorer.writer.complete([requests[number].args[0] for number in numbers], **json.loads(key))
      texts |= zip(numbers, (record["completion"] for record in found))
    return [texts[number] for number in range(len(requests))]


def settings(given: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a request's settings in our own names; without `do_sample` or a temperature it decodes greedily.

  Raises:
    Mistake: one is not known.
  """
  if unknown := sorted(set(given) - KNOWN):
    raise Mistake(f"a request has settings that are not known here: {', '.join(unknown)}; known are {sorted(KNOWN)}")
  stop = given.get("until") or []
  tokens = next((given[name] for name in LENGTHS if given.get(name) is not None), LONGEST)
  found: dict[str, Any] = {"stop": [stop] if isinstance(stop, str) else list(stop), "tokens": tokens}
  found |= {own: given[name] for name, own in DRAWING.items() if given.get(name) is not None}
  found.setdefault("temperature", 1.0 if given.get("do_sample") else 0.0)
  return found | ({} if given.get("do_sample", True) else {"temperature": 0.0})


def as_lm(scorer: Scorer) -> Any:
  """Returns a model as lm_eval takes it.

  Raises:
    Mistake: lm_eval is not installed.
  """
  return type("StateSpaceModel", (Methods, _lm_eval("api.model").LM), {})(scorer)


def run_tasks(scorer: Scorer, tasks: Sequence[Any], include: str | None, limit: int | None) -> dict[str, Any]:
  """Runs tasks of lm_eval, by name or as dicts, and returns their results."""
  evaluator, managers = _lm_eval("evaluator"), _lm_eval("tasks")
  manager = managers.TaskManager(include_path=include)
  found = evaluator.simple_evaluate(
    model=as_lm(scorer), tasks=list(tasks), task_manager=manager, limit=limit, bootstrap_iters=0
  )
  return found["results"]


def open_model(folder: str | Path) -> TextModel:
  """Opens a run, or a released model with its tokenizer.

  Raises:
    Mistake: the folder holds neither, or there is no tokenizer.
  """
  path = Path(folder).expanduser()
  if (path / "checkpoints").is_dir():
    return Run.open(path).text_model
  model, variables, _ = hf.load(path)
  return TextModel(model, variables, tokenizer.find(path, None, model.vocab))


def _lm_eval(module: str) -> Any:
  try:
    return importlib.import_module(f"lm_eval.{module}")
  except ImportError as error:
    raise Mistake(
      f"lm_eval cannot be imported ({error}); EXTRAS=harness ./dev setup installs it. LAMBADA is run without it, too"
    ) from None


def main(arguments: Sequence[str]) -> int:
  """Does what the command line asks for, and returns the exit code: 2 for a mistake, in one line."""
  parser = Parser(prog="python -m interop.harness", description=str(__doc__).splitlines()[0])
  parser.add_argument("model", help="the folder of a run, or of a released model")
  what = parser.add_mutually_exclusive_group(required=True)
  what.add_argument("--lambada", metavar="FILE", help="passages whose last words are asked for, a .jsonl file")
  what.add_argument("--tasks", help="tasks of lm_eval, separated by commas")
  parser.add_argument("--through", choices=("here", "lm_eval"), default="here", help="who runs LAMBADA")
  parser.add_argument("--include", default=None, help="a folder with more tasks of lm_eval")
  parser.add_argument("--limit", type=at_least(1), default=None, help="the first so many rows of each task alone")
  parser.add_argument("--batch", type=at_least(1), default=8, help="rows that are read together")
  args = parser.parse_args(arguments)
  try:
    writer = open_model(args.model)
    scorer = Scorer(writer, batch=args.batch)
    if args.tasks:
      results = run_tasks(scorer, args.tasks.split(","), args.include, args.limit)
    elif args.through == "lm_eval":
      results = run_tasks(scorer, [lambada.task(args.lambada)], None, args.limit)
    else:
      results = {"lambada": lambada.evaluate(writer, lambada.read(args.lambada, args.limit), batch=args.batch)}
  except Mistake as error:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
  print(json.dumps(results, indent=2, sort_keys=True, default=str))
  return 0


if __name__ == "__main__":
  sys.exit(terminal.exit_code(main(sys.argv[1:]), "error"))
