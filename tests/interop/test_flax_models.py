"""Whole models of S5 and annotated S4: logits of NumPy renderings of the authors' models; trees that are refused."""

import numpy as np
import pytest

from interop import flax_models, hf
from mistake import Mistake
from tests.contract.case import jit
from tests.interop.test_layers import D, T, annotated_kernel, annotated_tree, drawn, gelu, s5_forward, s5_tree

DEPTH, INPUTS, OUTPUTS = 2, 5, 4


def linear(d, e):
  return {"kernel": drawn(d, e), "bias": drawn(e)}


def mapped(p, x):
  return x @ p["kernel"].astype(np.float64) + p["bias"]


def norm(p, x):
  """Applies Flax's LayerNorm; or its BatchNorm, where there are statistics."""
  if "var" in p:
    return (x - p["mean"]) / np.sqrt(p["var"] + 1e-5) * p["scale"] + p["bias"]
  return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def blocks(x, layers, position, inside):
  """Applies residual blocks with their norm before or after."""
  for p in layers:
    y = x + inside(p, norm(p["norm"], x) if position == "pre" else x)
    x = norm(p["norm"], y) if position == "post" else y
  return x


def block(state_space, *maps):
  scale = {"scale": 1 + drawn(D), "bias": drawn(D)}
  return {"seq": state_space, "norm": scale, **{name: linear(D, D) for name in maps}}


def s5_model():
  layers = {f"layers_{i}": block(s5_tree(), "out2") for i in range(DEPTH)}
  return {"encoder": {"encoder": linear(INPUTS, D), **layers}, "decoder": linear(D, OUTPUTS)}


def statistics():
  return {"encoder": {f"layers_{i}": {"norm": {"mean": drawn(D), "var": drawn(D) ** 2}} for i in range(DEPTH)}}


def encoded(tree, x, position, stats=None):
  """The outputs of S5's encoder with gates half_glu1."""

  def inside(p, x):
    g = gelu(s5_forward(p["seq"], x, False))
    return g / (1 + np.exp(-mapped(p["out2"], g)))

  names = [f"layers_{i}" for i in range(DEPTH)]
  layers = [tree["encoder"][name] for name in names]
  if stats:
    layers = [p | {"norm": p["norm"] | stats["encoder"][name]["norm"]} for name, p in zip(names, layers)]
  return blocks(mapped(tree["encoder"]["encoder"], x), layers, position, inside)


def annotated_model(encoder, *maps):
  layers = {f"layers_{i}": block(annotated_tree(), *maps) for i in range(DEPTH)}
  return {"encoder": encoder, "decoder": linear(D, OUTPUTS), **layers}


def annotated_forward(tree, x, position):
  def inside(p, x):
    taps = np.stack([annotated_kernel(p["seq"], channel, T) for channel in range(D)], axis=1)
    y = np.stack([sum(taps[l] * x[t - l] for l in range(t + 1)) for t in range(T)])
    g = gelu(y + p["seq"]["D"] * x)
    return mapped(p["out"], g) / (1 + np.exp(-mapped(p["out2"], g))) if "out2" in p else mapped(p["out"], g)

  return blocks(x, [tree[f"layers_{i}"] for i in range(DEPTH)], position, inside)


@pytest.mark.parametrize("position, pool", [("pre", "mean"), ("post", "last")])
def test_a_model_of_s5_has_the_logits_of_theirs(position, pool):
  tree, x = s5_model(), drawn(T, INPUTS)
  y = encoded(tree, x, position)
  expected = mapped(tree["decoder"], y.mean(0) if pool == "mean" else y[-1])
  model, variables = flax_models.s5(tree, activation="half_glu1", norm=position, pool=pool)
  np.testing.assert_allclose(jit(model.apply)(variables, x[None])[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("position, pairs", [("post", False), ("pre", True)])
def test_a_model_of_s5_with_batch_norm_has_the_logits_of_theirs(position, pairs, tmp_path):
  """For a row, and for a pair of documents; a folder of ours keeps the statistics."""
  tree, stats, x = s5_model(), statistics(), drawn(2, T, INPUTS)
  u, v = (encoded(tree, row, position, stats).mean(0) for row in x)
  expected = mapped(tree["decoder"], u)
  if pairs:
    features = np.concatenate([u, v, u - v, u * v])
    # small inputs, for which GELU is no ReLU
    first = {"kernel": drawn(4 * D, D + 1) / np.abs(features).max(), "bias": drawn(D + 1)}
    tree["decoder"] = {"layer1": first, "layer2": linear(D + 1, OUTPUTS)}
    expected = mapped(tree["decoder"]["layer2"], gelu(mapped(first, features)))
  inputs = x[None] if pairs else x[:1]
  model, variables = flax_models.s5(tree, stats, activation="half_glu1", norm=position)
  found = jit(model.apply)(variables, inputs)[0]
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
  hf.save(tmp_path / "mine", model, variables)
  again, read, _ = hf.load(tmp_path / "mine")
  np.testing.assert_array_equal(jit(again.apply)(read, inputs)[0], found)


@pytest.mark.parametrize(
  "position, answer", [("pre", "label"), pytest.param("post", "tokens", marks=pytest.mark.slow), ("post", "pixels")]
)
def test_a_model_of_annotated_s4_has_the_logits_of_theirs(position, answer, tmp_path):
  """With their shift of the input where the next one is predicted; with and without a gate."""
  encoder = {"Embed_0": {"embedding": drawn(OUTPUTS, D)}} if answer == "tokens" else linear(1, D)
  tree = annotated_model(encoder, "out", *(["out2"] if position == "pre" else []))
  if answer == "tokens":
    inputs = np.array([0, *np.random.default_rng(1).integers(0, OUTPUTS, T - 1)])
    x = encoder["Embed_0"]["embedding"][inputs] * (inputs > 0)[:, None]
  else:
    inputs = np.abs(drawn(T, 1)) * (100 if answer == "pixels" else 1)
    x = mapped(encoder, inputs / 255 if answer == "pixels" else inputs)
  y = annotated_forward(tree, x, position)
  expected = mapped(tree["decoder"], y.mean(0) if answer == "label" else y)
  model, variables = flax_models.annotated_s4(tree, l_max=T, norm=position, answer=answer)
  found = jit(model.apply)(variables, inputs[None])[0]
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
  if answer == "pixels":
    hf.save(tmp_path / "mine", model, variables)
    again, read, _ = hf.load(tmp_path / "mine")
    np.testing.assert_array_equal(jit(again.apply)(read, inputs[None])[0], found)


def test_trees_that_are_no_such_models_are_refused():
  tree = s5_model()
  with pytest.raises(Mistake, match="norm='batch'; choose from"):
    flax_models.s5(tree, activation="half_glu1", norm="batch")
  with pytest.raises(Mistake, match="a model of S5 lacks decoder"):
    flax_models.s5({"encoder": tree["encoder"]}, activation="half_glu1", norm="pre")
  gap = {name: part for name, part in tree["encoder"].items() if name != "layers_0"}
  with pytest.raises(Mistake, match="a model of S5 has the parts encoder, layers_1"):
    flax_models.s5(tree | {"encoder": gap}, activation="half_glu1", norm="pre")
  with pytest.raises(Mistake, match="batch_stats/encoder lacks layers_1; it has layers_0"):
    flax_models.s5(tree, {"encoder": {"layers_0": {}}}, activation="half_glu1", norm="pre")
  short = statistics()
  short["encoder"]["layers_0"]["norm"] = {"mean": drawn(D)}
  with pytest.raises(Mistake, match="batch_stats/encoder/layers_0/norm lacks var; it has mean"):
    flax_models.s5(tree, short, activation="half_glu1", norm="pre")
  pairs = tree | {"decoder": {"layer1": linear(4 * D, D), "layer2": linear(D, OUTPUTS)}}
  with pytest.raises(Mistake, match="pool='last', but the decoder is that of S5's model of pairs"):
    flax_models.s5(pairs, activation="half_glu1", norm="pre", pool="last")
  odd = {"kernel": tree["decoder"]["kernel"], "bias": drawn(OUTPUTS + 1)}
  with pytest.raises(Mistake, match="these parameters do not fit the others: params:head/out_proj/bias"):
    flax_models.s5(tree | {"decoder": odd}, activation="half_glu1", norm="pre")
  with pytest.raises(Mistake, match="the encoder has no table Embed_0; it has bias, kernel"):
    flax_models.annotated_s4(annotated_model(linear(1, D), "out"), l_max=T, norm="pre", answer="tokens")
