"""sLSTM and mLSTM beside NX-AI/xlstm; xLSTM 7B's mLSTM beside the library transformers."""

import jax.numpy as jnp

from hybrids.mixer import build
from tests.golden.compare import check, conv, dense, read


def test_slstm_is_the_authors():
  given, *rest = read("slstm")
  b, t, d = given["x"].shape
  heads, size, _ = given["zgate.weight"].shape
  mixer = build("slstm", width=d, heads=heads)

  def run(p):
    # their names of the maps of i and f are swapped
    maps = {"i_proj": "fgate", "f_proj": "igate", "z_proj": "zgate", "o_proj": "ogate"}
    params = {ours: {"kernel": p[f"{theirs}.weight"].swapaxes(1, 2)} for ours, theirs in maps.items()}
    params["conv"] = conv(p, "conv1d.conv")
    params["R"] = p["slstm_cell._recurrent_kernel_"].reshape(heads, 4, size, size).transpose(0, 3, 1, 2)
    params |= {"bias": p["slstm_cell._bias_"].reshape(4, d), "norm": {"scale": 1 + p["group_norm.weight"]}}
    state = mixer.init_state(b, t)._replace(**dict(zip("hcnm", p["state"])))
    y, last = mixer.apply({"params": params}, p["x"], state, method="prefill")
    return y, jnp.stack(last[:4])

  check(run, given, *rest)


def test_mlstm_is_the_authors_in_parallel_and_step_by_step():
  mixer = build("mlstm", width=8, heads=2)

  def run(p):
    params = {f"{name}_proj": {"kernel": p[f"{name}_proj.weight"].swapaxes(1, 2)} for name in "qkv"}
    maps = {"in_proj": "proj_up", "out_proj": "proj_down"} | {f"{z}_proj": f"mlstm_cell.{z}gate" for z in "if"}
    params |= {ours: dense(p, theirs) for ours, theirs in maps.items()} | {"conv": conv(p, "conv1d.conv")}
    params |= {"norm": {"scale": 1 + p["mlstm_cell.outnorm.weight"]}, "skip": p["learnable_skip"]}
    y = mixer.apply({"params": params}, p["x"])
    return y, y

  check(run, *read("mlstm"))


def test_mlstm_of_xlstm_7b_is_the_one_of_transformers():
  """In chunks, and a prompt of a chunk and five steps."""
  mixer = build("mlstm_large", width=8, heads=2, soft_cap=2.0)
  maps = {f"{name}_proj": name for name in "qkv"} | {"out_proj": "out_proj"}
  maps |= {"i_proj": "igate_preact", "f_proj": "fgate_preact", "gate_proj": "ogate_preact"}

  def run(p):
    params = {ours: dense(p, theirs) for ours, theirs in maps.items()}
    params["norm"] = {"scale": p["multihead_norm.weight"]}
    y = mixer.apply({"params": params}, p["x"])
    return y, y[:, :13]

  check(run, *read("mlstm_large"))
