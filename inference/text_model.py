"""A language model with its tokenizer: text in, text out."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from inference import chat as chat_lib
from inference import completions, text
from inference.sampling import read_bias
from inference.text import Stream
from inference.tokenizer import Tokenizer
from mistake import Mistake, hint
from training.settings import SEEDS

WHOLE = ("tokens", "top_k", "seed", "batch", "num_return_sequences", "num_beams", "num_speculative_tokens")


class TextModel:
  """A model, its variables and tokenizer, and the settings that hold where a call does not change them.

  Args:
    settings: keyword arguments of `inference.text.write`; a config's generate section.
  """

  def __init__(self, model: nn.Module, variables: Mapping[str, Any], tokenizer: Tokenizer, **settings: Any):
    self.model, self.variables, self.tokenizer, self.settings = model, variables, tokenizer, settings

  def generate(self, prompt: str | None = None, *, out: Stream | None = None, **changes: Any) -> str:
    """Returns the text that continues a prompt, and writes both to `out` as it is drawn."""
    settings = changes if prompt is None else {"prompt": prompt, **changes}
    return text.write(*self._parts, out=out, **self._settings(text.write, settings))

  def complete(self, prompts: str | Sequence[str], **changes: Any) -> Iterator[completions.Record]:
    """Yields the completions of many prompts; see `inference.completions.complete`, whose arguments may be given."""
    # a text is a sequence of texts as well, which nobody means
    prompts = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(prompts, Sequence):
      raise Mistake(f"generate: the prompts are of type {type(prompts).__name__}; give a text, or a list of texts")
    return completions.complete(*self._parts, prompts, **self._settings(completions.complete, changes))

  def chat(self, **changes: Any) -> chat_lib.Chat:
    """Returns a conversation, which keeps its state between turns."""
    return chat_lib.Chat(*self._parts, **self._settings(chat_lib.Chat, changes))

  @property
  def _parts(self) -> tuple[nn.Module, Mapping[str, Any], Tokenizer]:
    return self.model, self.variables, self.tokenizer

  def _settings(self, taker: Callable[..., Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that a function takes.

    Raises:
      ValueError: a change is none of them.
    """
    known = [name for name, p in inspect.signature(taker).parameters.items() if p.kind == p.KEYWORD_ONLY]
    for name in changes:
      if name not in known:
        raise Mistake(f"generate has no {name!r}{hint(name, known)}; choose from {', '.join(known)}")
      if name in WHOLE and not isinstance(changes[name], int | np.integer):
        raise Mistake(f"generate: {name}={changes[name]!r}; give a whole number")
      if name == "seed" and changes[name] not in SEEDS:
        raise Mistake(f"generate: seed={changes[name]}; give a whole number of 32 bits, e.g. 0")
    if isinstance(stop := changes.get("stop"), str):
      changes = {**changes, "stop": [stop]}
    settings = {name: value for name, value in {**self.settings, **changes}.items() if name in known}
    if isinstance(bias := settings.get("logit_bias"), Sequence):
      settings["logit_bias"] = read_bias(bias)
    return settings
