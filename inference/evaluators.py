"""What a run is asked beside the evaluation sets of its own task: any number of these, each a section of the config.

  evaluators.long.name=task,evaluators.long.every=500,evaluators.long.data.length=1024

asks every 500 steps how a model does on rows of 1,024, and writes `long/validation/accuracy` to metrics.jsonl and
TensorBoard. A section has a `name`, `every`, the steps between two evaluations (0: at the end alone), and the fields of
the class that the name stands for: one of EVALUATORS, or a dotted path to a class like these.
"""

import dataclasses
import functools
import importlib
import typing
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from data.task import build_task, fits
from inference import samples, tokenizer
from inference.generate import Generated, generate
from inference.sampling import make_sampler
from mistake import Mistake, hint
from training import evaluate as evaluate_lib
from training.state import variables_shape

# asks a model's variables at a step
Ask = Callable[[Any, int], dict[str, float]]


class Subject(NamedTuple):
  """The run that is evaluated.

  Attributes:
    data: the config's section of its task.
    prompt: the config's own, for generation.
    workdir: where samples are written; None writes none.
  """

  model: nn.Module
  task: Any
  mesh: Mesh
  data: Mapping[str, Any]
  prompt: str
  workdir: Path | None


class Evaluation(NamedTuple):
  """Something to evaluate every so many steps, and its name, for people; empty for the task's own sets."""

  every: int
  about: str
  ask: Ask


@runtime_checkable
class Evaluator(Protocol):
  """Names what can be evaluated during training: a frozen dataclass of fields with defaults."""

  def prepare(self, subject: Subject, label: str) -> Ask:
    """Returns the function that asks, once what can be wrong has been found to be right."""
    ...


@dataclasses.dataclass(frozen=True)
class OtherTask:
  """The metrics of a task's evaluation sets: of the run's own with other fields, or of another one.

  Longer rows show how a model extrapolates, more pairs how much it recalls, and `data.name` of a recall task whether a
  language model retrieves.

  Attributes:
    data: fields of the task that differ from the run's; with a `name`, a task with its fields.
    model: fields of the model's sections that differ from the run's, as `body.letters.m.step_rescale`; its parameters
      stay, so that only what they do not depend on can change.
    batches: of each set, 0 for all.
    chunk: tokens a call, the state being carried; 0 for whole rows.
  """

  data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  batches: int = 0
  chunk: int = 0

  def prepare(self, subject: Subject, label: str) -> Ask:
    """Builds the task and tries the model on its rows; returns the function that evaluates.

    Raises:
      Mistake: there is no such task, nothing in it can be scored, its tokens or classes are not the model's, the model
        cannot be changed so, or it cannot read the task's rows.
    """
    section = dict(self.data) if "name" in self.data else {**subject.data, **self.data}
    try:
      model = changed(subject.model, self.model)
      if self.model and variables_shape(model, subject.task) != variables_shape(subject.model, subject.task):
        raise Mistake(f"model={dict(self.model)} changes the parameters' shapes")
      task = build_task(**section)
      evaluate_lib.preview(task, self.batches)
    except Mistake as error:
      raise Mistake(f"evaluators.{label}: {error}") from None
    for size in ("head", "vocab", "features", "classes"):
      own, other = getattr(subject.task, size), getattr(task, size)
      if own != other and not (size == "vocab" and own and other and other < own):
        raise Mistake(f"evaluators.{label}: the task has {size}={other!r}, but the model was made for {own!r}")
    evaluate = evaluate_lib.make_evaluate(model, task, subject.mesh, chunk=self.chunk, batches=self.batches)
    if not self.chunk:
      is_box = lambda leaf: isinstance(leaf, nn.meta.AxisMetadata)
      # a box would put its constraint of a mesh on what has only a shape
      bare = lambda leaf: leaf.value if is_box(leaf) else leaf
      shapes = jax.tree.map(bare, variables_shape(model, subject.task), is_leaf=is_box)
      loss = functools.partial(model.apply, method="loss")
      for rows in task.eval_sets(jax.process_index(), jax.process_count()).values():
        jax.eval_shape(loss, shapes, next(iter(rows())))
    return lambda variables, _: {
      key.replace("eval/", f"{label}/", 1): value for key, value in evaluate(variables).items()
    }


@dataclasses.dataclass(frozen=True)
class Samples:
  """Generates text, images or sounds into DIR/samples/LABEL, and reports two numbers about them.

  `bits_per_token` is how unlikely its own samples are to the model, and `distinct` how many different runs of four
  tokens they have, as a share of all runs; both fall when it repeats itself.

  Attributes:
    rows: how many samples.
    tokens: of each; 0 for 256 of text, or a whole image or row of sound.
    prompt: the text that begins each; the config's own if empty. Images and sounds begin from nothing.
    temperature, top_k, top_p, seed: of the draws.
    rate: samples of sound a second.
  """

  rows: int = 4
  tokens: int = 0
  prompt: str = ""
  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  seed: int = 0
  rate: int = 16000

  def prepare(self, subject: Subject, label: str) -> Ask:
    """Checks the fields and encodes the prompt; returns the function that draws and writes samples.

    Raises:
      Mistake: a number is out of its range, the task has no text to begin with, or several processes share the model.
    """
    if not 1 <= self.rows < 2**31 or self.tokens < 0 or self.rate < 1:
      raise Mistake(
        f"evaluators.{label}: rows={self.rows}, tokens={self.tokens}, rate={self.rate}; at least 1, 0 and 1"
      )
    if jax.process_count() > 1:
      raise Mistake(f"evaluators.{label}: samples are drawn by one process; leave it out where there are several")
    sampler = make_sampler(self.temperature, self.top_k, self.top_p)
    task, start = subject.task, getattr(subject.task, "START", None)
    if start is None:
      words = tokenizer.find(subject.workdir, task, subject.model.vocab)
      form: samples.Form = samples.Text(words.decode)
      prompt = words.encode(self.prompt or subject.prompt)
    else:
      prompt, form = np.array([start], np.int32), samples.of_task(task, self.rate)
    count = self.tokens or (256 if start is None else task.length)

    def draw(variables: Any) -> Generated:
      settings: dict[str, Any] = {"sampler": sampler, "rng": jax.random.key(self.seed)}
      return generate(subject.model, variables, [prompt] * self.rows, max_new_tokens=count, **settings)

    def ask(variables: Any, step: int) -> dict[str, float]:
      drawn = alone(draw, variables)
      tokens = np.asarray(drawn.tokens)
      if subject.workdir is not None:
        form.write(subject.workdir / "samples" / label, step, prompt, tokens)
      bits = -np.asarray(drawn.logprobs, np.float64).mean() / np.log(2)
      return {f"{label}/bits_per_token": float(bits), f"{label}/distinct": samples.distinct(tokens)}

    return ask


def changed(model: nn.Module, sections: Mapping[str, Any]) -> nn.Module:
  """Returns the model with other fields in some of its sections.

  Raises:
    Mistake: a section or a field is unknown, or a value does not fit.
  """
  unknown = sorted(set(sections) - {"embed", "body", "head"})
  if unknown:
    raise Mistake(f"model.{unknown[0]} cannot differ from the run's; choose from embed, body and head")
  fields: dict[str, Any] = {name: merged(getattr(model, name), section) for name, section in sections.items()}
  return model.clone(**fields)


def merged(section: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a section with other values in the places of some of its own."""
  inner = lambda key, value: isinstance(value, Mapping) and isinstance(section.get(key), Mapping)
  return {**section, **{key: merged(section[key], v) if inner(key, v) else v for key, v in changes.items()}}


EVALUATORS: dict[str, type[Any] | str] = {"lambada": "interop.lambada.Lambada", "samples": Samples, "task": OtherTask}


def alone(function: Callable[[Any], Any], variables: Any) -> Any:
  """Returns function(variables) by one device, without the mesh of the run: meshes are set for a thread."""
  with ThreadPoolExecutor(1) as pool:
    return pool.submit(function, jax.device_get(variables)).result()


def find(name: Any) -> type[Any]:
  """Returns the class of an evaluator.

  Raises:
    Mistake: nothing has the name.
  """
  known = EVALUATORS.get(name, name)
  if isinstance(known, type):
    return known
  module, _, cls = str(known).rpartition(".")
  try:
    evaluator = getattr(importlib.import_module(module), cls) if module else None
  except (ImportError, AttributeError):
    evaluator = None
  if not dataclasses.is_dataclass(evaluator) or not hasattr(evaluator, "prepare"):
    raise Mistake(
      f"no evaluator is called {name!r}{hint(str(name), EVALUATORS)}; choose from {sorted(EVALUATORS)}, or give the "
      "dotted path of a class like those in inference/evaluators.py"
    )
  assert isinstance(evaluator, type), evaluator
  return evaluator


def of_run(model: nn.Module, task: Any, mesh: Mesh, config: Any, workdir: Path | None) -> list[Evaluation]:
  """Returns the evaluation of a task's own sets, and after it those of the config's evaluators."""
  section = config.eval
  own = evaluate_lib.make_evaluate(model, task, mesh, chunk=section.chunk, batches=section.batches)
  subject = Subject(model, task, mesh, config.data.to_dict(), config.generate.prompt, workdir)
  own_sets = Evaluation(section.every, "", lambda variables, _: own(variables))
  return [own_sets, *build(config.evaluators.to_dict(), subject)]


def build(sections: Mapping[str, Mapping[str, Any]], subject: Subject) -> list[Evaluation]:
  """Returns the evaluations that the sections of a config ask for.

  Raises:
    Mistake: a section names no evaluator, has a field that the class does not, or cannot be evaluated on this model.
  """
  evaluations = []
  for label, section in sections.items():
    fields = {key: value for key, value in section.items() if key not in ("name", "every")}
    cls = find(section.get("name"))
    kinds = {field.name: field.type for field in dataclasses.fields(cls)}
    for key, value in fields.items():
      if key not in kinds:
        raise Mistake(
          f"evaluators.{label}: {section['name']!r} has no field {key!r}{hint(key, kinds)}; its fields are {[*kinds]}"
        )
      plain = next((kind for kind in (int, float, str) if kinds[key] is kind), None)
      if plain and not fits(value, plain):
        raise Mistake(f"evaluators.{label}.{key}={value!r}; it must be of the kind {plain.__name__}")
      if typing.get_origin(kinds[key]) is Mapping and not isinstance(value, Mapping):
        raise Mistake(f"evaluators.{label}.{key}={value!r}; it is a section of keys and values")
    ask = cls(**fields).prepare(subject, label)
    evaluations.append(Evaluation(section.get("every", 0), f"evaluator {label}", ask))
  return evaluations
