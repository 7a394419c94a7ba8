"""The row of a table of published sizes, and the sections that most language models share."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flax.core import FrozenDict


class Recipe(NamedTuple):
  """A published size of a model. It has the attributes of a task by which `build_model` sets sizes.

  Attributes:
    function: returns the model's sections.
    fields: the function's arguments, as published.
    parameters, active: the published numbers, in all and those that one token passes. Where none is, `parameters` is
      the count of transformers or our own, as the file says, or None.
    within: how far the count may be from these, as a share of them, because they were published rounded; 0 for exact.
    head, vocab, features, classes: of the task that the model was published for.
    length: tokens of a sequence in that task.
  """

  function: Callable[..., dict[str, Any]]
  fields: Mapping[str, Any]
  parameters: int | None = None
  active: int | None = None
  within: float = 0.0
  head: str = "lm"
  vocab: int | None = None
  features: int | None = None
  classes: int | None = None
  length: int = 2048

  @property
  def model(self) -> dict[str, Any]:
    """Returns the model's sections: width, embed, body, head and what else the family needs."""
    return self.function(**self.fields)


def used(letters: Mapping[str, Mapping[str, Any]], pattern: str) -> dict[str, dict[str, Any]]:
  """Returns the letters that the pattern has."""
  return {letter: dict(section) for letter, section in letters.items() if letter in pattern}


def language_model(
  *,
  width: int,
  pattern: str,
  letters: Mapping[str, Mapping[str, Any]],
  depth: int | None = None,
  norm: str = "rms",
  norm_eps: float = 1e-5,
  branch: Mapping[str, Any] = FrozenDict(),
  embed: Mapping[str, Any] = FrozenDict(),
  head: Mapping[str, Any] = FrozenDict(),
  **stack: Any,
) -> dict[str, Any]:
  """Returns the sections of a stack between an embedding of tokens and logits.

  Args:
    letters: of all layers there may be; those that the pattern does not use are left out.
    depth: letters of the model; the pattern as it is, if not given.
    norm, norm_eps: of all branches and of the last norm.
    branch, embed, head, stack: further fields of these sections.
  """
  return dict(
    width=width,
    embed=dict(name="tokens", **embed),
    body=dict(
      name="stack",
      pattern=pattern,
      depth=depth or len(pattern),
      letters=used(letters, pattern),
      branch=dict(norm=dict(name=norm, eps=norm_eps), **branch),
      **stack,
    ),
    head=dict(name="lm", **head),
  )
