"""The type checker behind the import hook: beartype, taking an int where a float is annotated, as PEP 484 does.

What it finds is a TypeError, as what jaxtyping finds and what Python would raise a little later.

Shapes have to agree over the arguments and the result of a function, for which jaxtyping binds and checks every call
twice. That takes more time than most tests, so only functions with shapes get it; others are checked by beartype alone,
and functions inside of functions, which would be wrapped anew at every call, not at all.
"""

import inspect
import typing

import jaxtyping
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeError))
_jaxtyped = jaxtyping.jaxtyped


def jaxtyped(*, typechecker):
  """Stands in place of `jaxtyping.jaxtyped` as its import hook calls it."""

  def decorate(thing):
    if not inspect.isfunction(thing):
      return _jaxtyped(thing, typechecker=typechecker)
    if "<locals>" in thing.__qualname__:
      return thing
    return _jaxtyped(thing, typechecker=typechecker) if has_shapes(thing) else check(thing)

  return decorate


def has_shapes(function) -> bool:
  """Returns whether an annotation has a shape, or is a text, which is not looked into."""
  return any(_has_shape(annotation) for annotation in inspect.get_annotations(function).values())


def _has_shape(annotation) -> bool:
  if isinstance(annotation, str) or inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
    return True
  arguments = annotation if isinstance(annotation, (list, tuple)) else typing.get_args(annotation)
  return any(map(_has_shape, arguments))
