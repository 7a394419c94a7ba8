"""A released config.json as families read it: every key that nobody asked for and nobody knows is an error."""

from collections.abc import Mapping
from typing import Any

from mistake import Mistake

# keys of any family that do not change what the model computes at inference: names, special tokens, what is returned,
# initial values, dropout, and how transformers runs it
IGNORED = """
  _attn_implementation _attn_implementation_autoset _name_or_path add_cross_attention architectures attention_dropout
  attn_implementation auto_map begin_suppress_tokens bos_token_id chunk_size_feed_forward cross_attention_hidden_size
  decoder_start_token_id dtype embd_pdrop eos_token_id exponential_decay_length_penalty finetuning_task head_mask
  hidden_dropout id2label initializer_range is_decoder is_encoder_decoder label2id model_type num_labels
  output_attentions output_hidden_states output_router_logits pad_token_id prefix pretraining_tp problem_type
  pruned_heads resid_pdrop return_dict router_aux_loss_coef router_jitter_noise sep_token_id task_specific_params
  tokenizer_class torch_dtype torchscript transformers_version unk_token_id use_cache
"""
NEEDED = object()


class Config:
  """The values of a config.json, which remembers the keys that were asked for.

  Attributes:
    values: of the file, as they are.
    where: the file, for messages.
  """

  def __init__(self, values: Mapping[str, Any], where: str):
    self.values, self.where = values, where
    self._read: set[str] = set()

  def get(self, key: str, default: Any = NEEDED) -> Any:
    """Returns a value; where it is missing or null, the default.

    Raises:
      Mistake: it is missing and has no default.
    """
    self._read.add(key)
    value = self.values.get(key)
    if value is None:
      if default is NEEDED:
        raise Mistake(f"{self.where} has no {key!r}, which {self.values.get('model_type')!r} needs")
      return default
    return _plain(value)

  def has(self, key: str) -> bool:
    """Returns whether the file has a value under the key."""
    return self.values.get(key) is not None

  def expect(self, key: str, *known: Any) -> Any:
    """Returns a value that must be one of those known, the first of which is the default.

    Raises:
      Mistake: it is another one.
    """
    value = self.get(key, known[0])
    if value not in known:
      raise Mistake(
        f"{self.where}: {key}={value!r} changes the computation and is not known here; known are {list(known)}"
      )
    return value

  def refuse(self, key: str, need: str) -> Mistake:
    """Returns the error for a value that does not fit the others."""
    return Mistake(f"{self.where}: {key}={self.values.get(key)!r}; it must be {need}")

  def inside(self, key: str) -> "Config":
    """Returns the section under a key, as a config of its own."""
    section = self.get(key)
    if not isinstance(section, Mapping):
      raise Mistake(f"{self.where}: {key} is no section")
    return Config(section, f"{self.where}: {key}")

  def pass_over(self, section: "Config") -> None:
    """Counts as read what a section says, too: files that were flat once have keys in both places."""
    self._read |= {key for key, value in section.values.items() if self.values.get(key) == value}

  def finish(self, ignored: str) -> None:
    """Checks that every key was asked for, or is known not to change the computation.

    Args:
      ignored: more keys that do not change it, between blanks.

    Raises:
      Mistake: it lists the others.
    """
    if self.has("quantization_config"):
      method = self.values["quantization_config"]
      method = method.get("quant_method", method) if isinstance(method, Mapping) else method
      raise Mistake(
        f"{self.where}: the weights are quantised ({method}), which is not read: save the model in bfloat16 first"
      )
    known = {*self._read, *IGNORED.split(), *ignored.split()}
    left = [key for key in self.values if key not in known and self.has(key)]
    if left:
      values = ", ".join(f"{key}={self.values[key]!r}" for key in sorted(left))
      raise Mistake(f"{self.where} has keys that may change the computation and are not known here: {values}")


def _plain(value: Any) -> Any:
  """Python's own numbers: transformers writes infinity as {"__float__": "Infinity"}."""
  if isinstance(value, Mapping):
    return float(value["__float__"]) if set(value) == {"__float__"} else {k: _plain(v) for k, v in value.items()}
  return [_plain(item) for item in value] if isinstance(value, list) else value
