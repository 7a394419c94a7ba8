"""Whole models of lindermanlab/S5 and srush/annotated-s4 as ours, from their trees of Flax parameters.

  tree = layers.read("checkpoint.msgpack")                     # or .npz with keys a/b/c; nothing is unpickled
  model, variables = flax_models.s5(tree["params"], tree.get("batch_stats"), activation="half_glu1", norm="pre")
  logits = model.apply(variables, x)                           # b c; theirs return log_softmax of them
  hf.save("mine", model, variables)                            # a folder that interop.hf.load reads

Sizes are the tree's. What a tree does not say is an argument, by the name that it has in their settings. Both have
`encoder` and `decoder`, linear maps with biases, and layers of a state space, gates and a norm whose epsilon is Flax's:
LayerNorm, or S5's BatchNorm, whose parameters have the same names and whose statistics are a tree of their own.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
from flax.core import meta

from hybrids.model import Model, build_model
from interop import layers, plan
from interop.layers import Tree, arrays, check
from interop.tensors import some
from mistake import Mistake

LAYER_NORM = {"name": "layer", "eps": 1e-6}
BATCH_NORM = {"name": "batch", "eps": 1e-5}
NORMS = ("pre", "post")
POOLS = ("mean", "last")
LINEAR = {"kernel", "bias"}
ANSWERS = ("label", "tokens", "pixels")

Layer = tuple[dict[str, Any], dict[str, Any]]


def s5(
  tree: Tree, stats: Tree | None = None, *, activation: str, norm: str, pool: str = "mean", **fields: Any
) -> tuple[Model, dict[str, Any]]:
  """Makes a ClassificationModel or RetrievalModel of lindermanlab/S5 ours; tokens are vectors with a single 1.

  Theirs takes the first documents of all pairs and then the second ones; ours takes "b 2 t d". In padding their layers
  read on, which a layer of both directions brings back to the document; ours do not.

  Args:
    tree: its collection `params`.
    stats: its collection `batch_stats`, where it was trained with BatchNorm.
    activation: theirs: "full_glu", "half_glu1", "half_glu2" or "gelu".
    norm: "pre" or "post", their `prenorm`.
    pool: "mean" or "last", their `mode`; of pairs "mean".
    fields: of our mixer s5, for what differs from its defaults: `clip_eigs`, `disc`, `step_rescale`.

  Raises:
    Mistake: a parameter is missing, unknown or of another shape, or a value is unknown.
  """
  _one_of(norm=(norm, NORMS), pool=(pool, POOLS))
  check("a model of S5", tree, {"encoder", "decoder"})
  found, (start, kernel) = _numbered(tree["encoder"], "S5"), _encoder(tree["encoder"])
  made = [layers.s5(layer, activation=activation) for layer in found]
  head, parameters = _s5_head(tree["decoder"], pool)
  classes = parameters["out_proj"]["kernel"].shape[1]
  sizes = dict(head="classifier", vocab=None, features=len(kernel), classes=classes)
  branch = dict(norm=LAYER_NORM if stats is None else BATCH_NORM, norm_position=norm)
  model = _model(kernel.shape[1], branch, ("s5", fields), made, head=head, sizes=sizes)
  kept = None if stats is None else _stats(stats, len(found))
  return model, _variables(model, {"in_proj": start}, [layer["norm"] for layer in found], made, parameters, kept)


def _s5_head(decoder: Tree, pool: str) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns the head's section and parameters: a linear map, or for pairs two of them."""
  if "layer1" not in decoder:
    check("the decoder of a model of S5", decoder, LINEAR)
    return dict(pool=pool), {"out_proj": arrays(decoder)}
  check("the decoder of S5's model of pairs", decoder, {"layer1", "layer2"})
  for layer in decoder.values():
    check("a layer of the decoder of S5's model of pairs", layer, LINEAR)
  if pool != "mean":
    raise Mistake(f"pool={pool!r}, but the decoder is that of S5's model of pairs, which has the mean; leave pool out")
  head = dict(name="dual_encoder", pool=pool, inner=len(decoder["layer1"]["bias"]), activation="gelu_tanh")
  return head, {"in_proj": arrays(decoder["layer1"]), "out_proj": arrays(decoder["layer2"])}


def _stats(stats: Tree, layers: int) -> list[dict[str, Any]]:
  """Returns the mean and variance of each layer's BatchNorm."""
  check("batch_stats", stats, {"encoder"})
  names = [f"layers_{number}" for number in range(layers)]
  check("batch_stats/encoder", stats["encoder"], set(names))
  found = [stats["encoder"][name] for name in names]
  for name, layer in zip(names, found, strict=True):
    check(f"batch_stats/encoder/{name}", layer, {"norm"})
    check(f"batch_stats/encoder/{name}/norm", layer["norm"], {"mean", "var"})
  return [arrays(layer["norm"]) for layer in found]


def annotated_s4(tree: Tree, *, l_max: int, norm: str, answer: str) -> tuple[Model, dict[str, Any]]:
  """Makes a StackedModel of srush/annotated-s4 whose layers are S4 ours.

  Their models of sequences shift the input by one token themselves: token t of theirs is answered by what ours answers
  to the inputs 0, x_0, …, x_{t-1}. The table has a zero for token 0, as theirs hides it.

  Args:
    tree: its collection `params`.
    l_max: the length of its kernels, for which C is trained.
    norm: "pre" or "post", their `prenorm`.
    answer: a "label" for a row of numbers; or the next one of "tokens", their `embedding`; or the next one of "pixels",
      from 0 to 255, which they divide by 255.

  Raises:
    Mistake: as for `s5`.
  """
  _one_of(norm=(norm, NORMS), answer=(answer, ANSWERS))
  decoder = tree.get("decoder", {})
  check("the decoder of a model of annotated S4", decoder, LINEAR)
  found = _numbered(tree, "annotated S4", ("encoder", "decoder"))
  made = [_annotated_block(layer, l_max) for layer in found]
  outputs, width = np.shape(decoder["kernel"])[1], np.shape(decoder["kernel"])[0]
  sizes: dict[str, Any] = dict(head="lm", vocab=outputs, features=None, classes=None)
  if answer == "tokens":
    encoder = tree.get("encoder", {})
    if "Embed_0" not in encoder:
      raise Mistake(f"answer='tokens', but the encoder has no table Embed_0; it has {some(encoder)}")
    table = np.array(encoder["Embed_0"]["embedding"], np.float32)
    table[0] = 0
    embed: dict[str, Any] = {"embedding": table}
  else:
    start, kernel = _encoder(tree)
    sizes["features"] = len(kernel)
    embed = {"in_proj": start | {"kernel": kernel / 255} if answer == "pixels" else start}
  head: dict[str, Any] = dict(tie=False, bias=True)
  if answer == "label":
    sizes |= dict(head="classifier", vocab=None, classes=outputs)
    head = dict(pool="mean")
    parameters: dict[str, Any] = {"out_proj": arrays(decoder)}
  else:
    parameters = {"table": np.asarray(decoder["kernel"], np.float32).T, "b": np.asarray(decoder["bias"], np.float32)}
  branch = dict(norm=LAYER_NORM, norm_position=norm)
  model = _model(width, branch, ("lssl", {}), made, head=head, sizes=sizes)
  return model, _variables(model, embed, [layer["norm"] for layer in found], made, parameters)


def _annotated_block(tree: Tree, l_max: int) -> Layer:
  """Returns the fields and parameters of lssl for a block: state space, GELU and a linear map, perhaps with a gate."""
  check("a block of annotated S4", tree, {"seq", "norm", "out", *({"out2"} & tree.keys())})
  fields, params = layers.annotated_s4(tree["seq"], l_max=l_max)
  maps = [arrays(tree[name]) for name in ("out", "out2") if name in tree]
  out = {leaf: np.concatenate([one[leaf] for one in maps], axis=-1) for leaf in ("kernel", "bias")}
  return fields | dict(activation="gelu_tanh", gated=len(maps) == 2), params | {"out_proj": out}


def _model(
  width: int,
  branch: Mapping[str, Any],
  mixer: tuple[str, Mapping[str, Any]],
  made: list[Layer],
  *,
  head: Mapping[str, Any],
  sizes: Mapping[str, Any],
) -> Model:
  """Builds the model of these layers, which must be alike."""
  name, more = mixer
  fields = made[0][0]
  if odd := [number for number, (other, _) in enumerate(made) if other != fields]:
    raise Mistake(f"layers {odd} are {made[odd[0]][0]}, where layer 0 is {fields}; all layers of a model are alike")
  section = dict(
    width=width,
    body=dict(
      name="stack",
      pattern="s",
      depth=len(made),
      letters={"s": dict(name=name, **fields, **more)},
      branch=dict(branch),
      last_norm=False,
    ),
    head=dict(head),
  )
  return build_model(SimpleNamespace(length=1, **sizes), **section)


def _variables(
  model: Model,
  embed: Mapping[str, Any],
  norms: list[Tree],
  made: list[Layer],
  head: Mapping[str, Any],
  stats: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
  """Returns the variables of the model, with layers stacked as for training."""
  each = {
    str(number): {"norm": arrays(norm), "mixer": params}
    for number, (norm, (_, params)) in enumerate(zip(norms, made, strict=True))
  }
  apart: dict[str, Any] = {"params": {"embed": dict(embed), "body": {"s": each}, "head": dict(head)}}
  if stats is not None:
    apart["batch_stats"] = {"body": {"s": {str(number): {"norm": one} for number, one in enumerate(stats)}}}
  variables = model.together(apart)
  made_of = jax.eval_shape(model.init, jax.random.key(0), model.example(1, 1)["inputs"])
  want, have = ({key: np.shape(x) for key, x in plan.leaves(tree).items()} for tree in (meta.unbox(made_of), variables))
  if wrong := [f"{key} {have.get(key)}, not {want.get(key)}" for key in want | have if have.get(key) != want.get(key)]:
    raise Mistake(f"these parameters do not fit the others: {some(wrong)}")
  return variables


def _numbered(tree: Tree, what: str, others: tuple[str, ...] = ("encoder",)) -> list[Tree]:
  """Returns the layers `layers_0`, `layers_1`, … in order; beside them stands what `others` names, and nothing else."""
  names = [name for name in tree if name not in others]
  wanted = [f"layers_{number}" for number in range(len(names))]
  if not names or set(names) != set(wanted):
    raise Mistake(f"a model of {what} has the parts {some(tree)}; beside {', '.join(others)} it must have layers_0, …")
  found = [tree[name] for name in wanted]
  for layer in found:
    if "norm" not in layer:
      raise Mistake(f"a layer of {what} lacks norm; it has {some(layer)}")
  return found


def _encoder(tree: Tree) -> tuple[dict[str, Any], np.ndarray]:
  """Returns the linear map before the layers, and its matrix."""
  check("a model's encoder", tree.get("encoder", {}), LINEAR)
  found = arrays(tree["encoder"])
  return found, found["kernel"]


def _one_of(**values: tuple[str, tuple[str, ...]]) -> None:
  for name, (value, known) in values.items():
    if value not in known:
      raise Mistake(f"{name}={value!r}; choose from {list(known)}")
