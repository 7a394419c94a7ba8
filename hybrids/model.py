"""Whole models: an embedding, a body and a head, each named by a section of a config.

A Model(vocab=256, width=64, body=dict(name="stack", pattern="m-", depth=4, …), head=dict(name="lm", tie=False)) has the
parameters

  embed/embedding                  (256, 64)
  body/m/mixer/in_proj/kernel      (2, 64, 256)      see hybrids/body/stack.py
  body/-/…
  body/final_norm/scale            (64,)
  head/table                       (256, 64)
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict, meta
from jaxtyping import Array, Bool, Float, Int

from hybrids import mixer as mixer_lib
from hybrids.body.stack import EMBEDDING
from hybrids.embed import DTYPES, EMBEDDINGS, Embedded, Embedding
from hybrids.embed.adaptive import Cluster
from hybrids.embed.ngrams import NGRAMS
from hybrids.head import HEADS, Head, Outputs, Sums
from hybrids.pure import SOWN
from layers.choices import one_of
from layers.sizes import at_least_one
from mistake import Mistake, hint

# room of states that grow where `max_len` is not given
ROOM = 4096
BOUNDED = ("grows", "whole input")


class ModelState(NamedTuple):
  """The state of a model between two calls."""

  position: Int[Array, "b"]  # of the next token, in its document
  layers: Any  # the body's, batch first in every leaf
  head: Any
  context: Any = ()  # the embedding's


class Model(nn.Module, kw_only=True):
  """head(body(embed(inputs))). `prefill` is the definition, as for mixers, where the body has a state.

  Attributes:
    embed, body, head: the `name` of each and its fields. The embedding is "tokens" or "features" by what the inputs
      are, if that is not said.
    max_len: rows of the table of learned positions, for which a task's length stands in `build_model`; and the tokens
      that a state which grows has room for, 4096 if not given.
    dtype: "float32" or "bfloat16", cast once, after the embedding.
    param_dtype: in which parameters are kept. Slow ones stay float32: steps smaller than bfloat16's would be lost.
    vocab, features, classes: sizes given by the task; where it has both, inputs are features and targets tokens.
  Raises:
    ValueError: when made, if a field does not fit.
  """

  width: int = 64
  embed: Mapping[str, Any] = FrozenDict()
  body: Mapping[str, Any]
  head: Mapping[str, Any] = FrozenDict(name="lm")
  max_len: int | None = None
  dtype: str = "float32"
  param_dtype: str = "float32"
  vocab: int | None = None
  features: int | None = None
  classes: int | None = None

  FROM_TASK = ("vocab", "features", "classes")

  def __post_init__(self):
    for name in ("embed", "body", "head"):
      setattr(self, name, mixer_lib.frozen(getattr(self, name)))
    one_of(self, dtype=DTYPES, param_dtype=DTYPES)
    at_least_one(self, "max_len")
    super().__post_init__()
    embed, body, head = self._embed(parent=None), self._body(parent=None), self._head(parent=None)
    if head.PREDICTS and (body.STATE == "none" or not embed.RESUMES):
      raise Mistake(
        f"head.name={self.head['name']!r} predicts the next token, which a body of STATE 'none' has seen already; use "
        "causal mixers, or the head 'masked_lm' or 'classifier'"
      )
    if (NGRAMS in embed.OFFERS) != (NGRAMS in body.SIDE):
      raise Mistake(
        f"the body reads {list(body.SIDE)} beside each token, and the embedding offers {list(embed.OFFERS)}: a mixer "
        "'engram' needs embed.name='ngrams' with use='layers', and nothing else does"
      )
    needs, has = getattr(head, "pool", None) == "cls", embed.class_token != "none"
    if needs != has:
      raise Mistake(
        f"head.pool={getattr(head, 'pool', None)!r} with embed.class_token={embed.class_token!r}: the pool 'cls' reads "
        "a class token at the 'start', 'middle' or 'end', and nothing else does"
      )

  @property
  def STATE(self) -> str:
    """Returns the STATE of the body; "none" where the embedding needs whole rows."""
    embed = self._embed(parent=None)
    whole = not embed.RESUMES or embed.class_token in ("start", "middle")
    return "none" if whole else self._body(parent=None).STATE

  @property
  def positions(self) -> int | None:
    """Returns how many tokens a document may have by the table of learned positions; None for any number."""
    return self.max_len or ROOM if self._embed(parent=None).position == "learned" else None

  @property
  def longest(self) -> int | None:
    """Returns how many tokens a sequence may have that is read from a state; None for any number."""
    bounded = self.STATE in BOUNDED or self.positions
    return self.max_len or ROOM if bounded else None

  @property
  def reads_pieces(self) -> bool:
    """Returns whether rows of any length are read, so that parameters can be made with one token."""
    return self.STATE != "none"

  @nn.nowrap
  def apart(self, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the model's variables with those of its layers apart, for loops over `step`; see `Stack`."""
    return self._with_body(variables, "apart")

  @nn.nowrap
  def together(self, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the inverse of `apart`, for training what was imported layer by layer."""
    return self._with_body(variables, "together")

  @nn.nowrap
  def init(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Calls Linen's `init`, with parameters in `param_dtype`, and without what calls sow."""
    variables = {name: tree for name, tree in super().init(*args, **kwargs).items() if name not in SOWN}
    is_box = lambda leaf: isinstance(leaf, meta.AxisMetadata)
    cast = lambda leaf: leaf.astype(DTYPES[self.param_dtype])

    def kept(leaf: Any) -> Any:
      if getattr(leaf, "slow", False):
        return leaf
      return leaf.replace_boxed(cast(leaf.unbox())) if is_box(leaf) else cast(leaf)

    return {**variables, "params": jax.tree.map(kept, variables.get("params", {}), is_leaf=is_box)}

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> ModelState:
    """Returns the state of the whole model before any token."""
    head, embed = self._head(parent=None), self._embed(parent=None)
    rows = batch * head.DOCUMENTS
    if not embed.RESUMES or embed.class_token in ("start", "middle"):
      raise Mistake("the model reads whole rows at once: it has no state, prefill or step")
    room = max_len + (embed.class_token == "end")
    layers = self._body(parent=None).init_state(rows, room)
    return ModelState(jnp.zeros((rows,), jnp.int32), layers, head.init_state(rows), embed.init_context(rows))

  @nn.nowrap
  def example(self, batch: int, length: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a batch: inputs, targets and weights."""
    head = self._head(parent=None)
    rows = (batch, head.DOCUMENTS, length) if head.DOCUMENTS > 1 else (batch, length)
    inputs = ((*rows, self.features), jnp.float32) if self.features else (rows, jnp.int32)
    shapes = {"inputs": inputs, **head.example_targets(batch, length)}
    return {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}

  def setup(self):
    self.embedding = self._embed(parent=None).copy(parent=self, name="embed")
    self.layers = self._body(parent=None).copy(parent=self, name="body")
    self.answers = self._head(parent=None).copy(parent=self, name="head")

  def __call__(
    self,
    inputs: Int[Array, "b ..."] | Float[Array, "b ..."],
    *,
    reset: Bool[Array, "b ..."] | None = None,
    lengths: Int[Array, "b ..."] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> Float[Array, "b ..."]:
    """Returns all answers from an empty state, one a token or a row; in the padding they are finite but arbitrary."""
    outputs = self._read(inputs, reset=reset, lengths=lengths, side=side)
    if self.answers.EACH:
      return self.answers.each(outputs)
    return self.answers.answer(outputs, self.answers.init_state(len(outputs.y)))[0]

  def prefill(
    self,
    inputs: Int[Array, "b ..."] | Float[Array, "b ..."],
    state: ModelState,
    *,
    reset: Bool[Array, "b ..."] | None = None,
    lengths: Int[Array, "b ..."] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> tuple[Float[Array, "b ..."], ModelState]:
    """Returns the answer after each row's last token, continuing from `state`, and the next state."""
    outputs, state = self._go_on(inputs, state, reset=reset, lengths=lengths, side=side)
    answer, head = self.answers.answer(outputs, state.head)
    return answer, state._replace(head=head)

  def prefill_all(
    self,
    inputs: Int[Array, "b ..."] | Float[Array, "b ..."],
    state: ModelState,
    *,
    reset: Bool[Array, "b ..."] | None = None,
    lengths: Int[Array, "b ..."] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> tuple[Float[Array, "b t v"], ModelState]:
    """Does the same as `prefill`, but returns the answers of all tokens.

    Raises:
      ValueError: the head has one answer a row.
    """
    outputs, state = self._go_on(inputs, state, reset=reset, lengths=lengths, side=side)
    return self.answers.each(outputs), state

  def step(
    self,
    inputs: Int[Array, "b ..."] | Float[Array, "b ..."],
    state: ModelState,
    *,
    side: Mapping[str, Array] | None = None,
  ) -> tuple[Float[Array, "b ..."], ModelState]:
    """Reads one more token, and returns the answer after it and the next state."""
    inputs = self._rows(inputs)
    one = self.embedding.step(inputs, state.position, state.context)
    beside, gaps = self._side(side, one)
    y, layers = self.layers.step(one.x, state.layers, side=beside)
    state = state._replace(position=one.position, layers=layers, context=one.context)
    gaps = None if gaps is None else gaps[:, None]
    outputs = self._ask(Outputs(y[:, None], jnp.ones_like(one.position), gaps, None, self._table()), state)
    answer, head = self.answers.answer(outputs, state.head)
    return answer, state._replace(head=head)

  def loss(self, batch: Mapping[str, Array]) -> Sums:
    """Returns by name (weighted sum, sum of weights) of a batch's losses and metrics, with "loss" among them."""
    outputs = self._read(batch["inputs"], **side_inputs(batch))
    state = self.answers.init_state(len(outputs.y))
    return self.answers.loss(outputs, state, batch["targets"], batch["weights"])[0]

  def resume_loss(self, batch: Mapping[str, Array], state: ModelState) -> tuple[Sums, ModelState]:
    """Does the same as `loss`, continuing from `state`, and returns the next state too."""
    outputs, state = self._go_on(batch["inputs"], state, **side_inputs(batch))
    sums, head = self.answers.loss(outputs, state.head, batch["targets"], batch["weights"])
    return sums, state._replace(head=head)

  def _read(self, inputs: Array, *, reset: Any = None, lengths: Any = None, side: Any = None) -> Outputs:
    """Returns the body's outputs for rows that start with an empty state."""
    inputs, reset, lengths = self._rows(inputs), self._rows(reset), self._lengths(lengths, inputs)
    embedded = self.embedding(inputs, jnp.zeros(inputs.shape[:1], jnp.int32), reset=reset, lengths=lengths)
    if self.embedding.class_token != "none":
      embedded = self.embedding.insert(embedded)
    beside, gaps = self._side(side, embedded)
    y = self.layers(embedded.x, reset=embedded.reset, lengths=embedded.lengths, side=beside)
    return self._outputs(y, embedded, gaps)

  def _go_on(
    self, inputs: Array, state: ModelState, *, reset: Any = None, lengths: Any = None, side: Any = None
  ) -> tuple[Outputs, ModelState]:
    """Returns the body's outputs for rows that continue from `state`, and the next state."""
    inputs, reset, lengths = self._rows(inputs), self._rows(reset), self._lengths(lengths, inputs)
    embedded = self.embedding(inputs, state.position, state.context, reset=reset, lengths=lengths)
    beside, gaps = self._side(side, embedded)
    y, layers = self.layers.prefill(embedded.x, state.layers, reset=reset, lengths=lengths, side=beside)
    state = state._replace(position=embedded.position, layers=layers, context=embedded.context)
    return self._ask(self._outputs(y, embedded, gaps), state), state

  def _outputs(self, y: Float[Array, "b t d"], embedded: Embedded, gaps: Array | None) -> Outputs:
    lengths, same = embedded.lengths, y.shape[1] == embedded.x.shape[1]
    if hasattr(self.layers, "ends"):
      gaps, lengths = self.layers.ends(jnp.ones(embedded.x.shape[:2]) if gaps is None else gaps, lengths)
    elif lengths is not None and not same:
      raise Mistake(f"body.name={self.body['name']!r} changes the number of tokens, so that rows cannot be padded")
    n = jnp.full((len(y),), y.shape[1], jnp.int32) if lengths is None else lengths
    reset = embedded.reset if same else None
    return Outputs(y, n, gaps, embedded.place, self._table(), reset)

  def _ask(self, outputs: Outputs, state: ModelState) -> Outputs:
    """Returns the outputs; or the output of a class token after `state`, which is left as it was."""
    if self.embedding.class_token == "none":
      return outputs
    y, _ = self.layers.step(self.embedding.token(len(outputs.y)), state.layers)
    one = jnp.ones(len(y), jnp.int32)
    return Outputs(y[:, None], one, None, jnp.zeros_like(one), outputs.table)

  def _side(self, side: Mapping[str, Array] | None, embedded: Embedded) -> tuple[dict[str, Array], Array | None]:
    """Returns inputs per token for the body, which refuses names that it does not know, and the gaps for the head."""
    beside = {name: self._rows(value) for name, value in (side or {}).items()}
    if beside and self.embedding.class_token != "none":
      raise Mistake(
        f"the class token has no inputs of its own beside it, so side must be empty; it has {sorted(beside)}"
      )
    gaps = beside.get("dt") if getattr(self.answers, "pool", None) == "time" else None
    known = self.layers.SIDE
    if gaps is not None and "dt" not in known:
      del beside["dt"]
    beside |= {EMBEDDING: embedded.x} if EMBEDDING in known else {}
    return {**beside, **embedded.side}, gaps

  def _table(self) -> Array | tuple[Cluster, ...] | None:
    return None if self.embedding.features else getattr(self.embedding, "embedding", None)

  def _lengths(self, lengths: Any, inputs: Array) -> Any:
    """Returns the lengths of the rows, of which none has more tokens than there are, as for mixers."""
    rows, time = self._rows(lengths), 1 if self.answers.DOCUMENTS == 1 else 2
    return None if rows is None else jnp.clip(rows, 0, inputs.shape[time])

  def _rows(self, value: Any) -> Any:
    """Reshapes an array of a batch to one row a document, where an answer is about several documents."""
    count = self.answers.DOCUMENTS
    if count == 1 or value is None:
      return value
    if value.shape[1] != count:
      raise Mistake(f"head.name={self.head['name']!r} reads {count} documents a row, but the batch has {value.shape}")
    return value.reshape(count * len(value), *value.shape[2:])

  @nn.nowrap
  def _embed(self, **kwargs: Any) -> Embedding:
    name = {"name": "features" if self.features else "tokens"}
    own = {"max_len": self.max_len or ROOM, "dtype": self.dtype}
    return self._section("embed", EMBEDDINGS, name | dict(self.embed), own, **kwargs)

  @nn.nowrap
  def _body(self, **kwargs: Any) -> nn.Module:
    return mixer_lib.build_spec(self.body, width=self.width, layer=0, depth=1, **kwargs)

  @nn.nowrap
  def _head(self, **kwargs: Any) -> Head:
    width = getattr(self._body(parent=None), "out_width", self.width)
    own = {"width": width, "cutoffs": getattr(self._embed(parent=None), "cutoffs", ())}
    return self._section("head", HEADS, dict(self.head), own, **kwargs)

  @nn.nowrap
  def _section(
    self, what: str, classes: Mapping[str, Any], section: dict[str, Any], own: Mapping[str, Any], **kwargs: Any
  ) -> Any:
    """Builds the class that a section names, from the section's fields and what it wants of the model and the task."""
    name = section.pop("name", None)
    if name not in classes:
      raise Mistake(f"no {what} {name!r}{hint(str(name), classes)}; choose from {sorted(classes)}")
    cls, sizes = classes[name], ("width", "vocab", "features", "classes")
    known = mixer_lib.fields(cls)
    wrong = sorted(set(section) & set(cls.FROM_TASK))
    if wrong:
      raise Mistake(f"{what}.{wrong[0]} is given by the model and the task; leave it out")
    given: dict[str, Any] = {size: getattr(self, size) for size in sizes} | dict(own)
    everything = {**{name: value for name, value in given.items() if name in known}, **section}
    mixer_lib.check_fields(cls, everything, f"{what} {name!r}")
    return cls(**everything, **kwargs)

  @nn.nowrap
  def _with_body(self, variables: Mapping[str, Any], method: str) -> dict[str, Any]:
    change = getattr(self._body(parent=None), method, lambda variables: variables)
    own = change({collection: tree["body"] for collection, tree in variables.items() if "body" in tree})
    return {name: {**tree, "body": own[name]} if name in own else tree for name, tree in variables.items()}


def build_model(task: Any, **section: Any) -> Model:
  """Builds the model of a config's model section for a task, which sets its sizes and the head's default.

  Everything that can be known without data is checked here.

  Args:
    task: has `head`, `vocab`, `features`, `classes` and `length`.

  Raises:
    ValueError: a name or a field is unknown, or a field does not fit.
  """
  known = [name for name in mixer_lib.fields(Model) if name not in Model.FROM_TASK]
  for key in section:
    if key not in known:
      raise Mistake(f"model has no field {key!r}{hint(key, known)}; its fields are {known}")
  fields: dict[str, Any] = {**section, **{size: getattr(task, size, None) for size in Model.FROM_TASK}}
  fields["head"] = {"name": task.head, **section.get("head", {})}
  if dict(section.get("embed", {})).get("position") == "learned" and section.get("max_len") is None:
    fields["max_len"] = task.length
  mixer_lib.check_fields(Model, fields, "model")
  model = Model(**fields)
  # mixers check their own fields in setup, so they are set up once here
  inputs = model.example(1, 1 if model.reads_pieces else task.length)["inputs"]
  jax.eval_shape(model.init, jax.random.key(0), inputs)
  return model


def side_inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the keyword arguments of a batch; its `dt`, the gap before each token, is for mixers and pools."""
  arguments = {key: batch[key] for key in ("reset", "lengths") if key in batch}
  return arguments | ({"side": {"dt": batch["dt"]}} if "dt" in batch else {})
