"""The benchmark program: what a floor is, what its arguments may be, and one tiny run of its kernels."""

import json

import jax
import pytest

from scripts import bench
from scripts.benchmarks import case, floors, kernels
from scripts.benchmarks.floors import Rates, Work
from scripts.peers import gpu_ops
from scripts.peers.own_process import own_process

RATES = Rates(bytes=1e9, flops_float32=1e9, flops_bfloat16=4e9, exps=1e9)


@pytest.fixture
def tiny(monkeypatch):
  """The program without its settings of the process, on a device that is measured in no time."""
  monkeypatch.setenv("XLA_FLAGS", "")
  monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  monkeypatch.setattr(bench.platform_lib, "prepare", lambda devices: None)
  monkeypatch.setattr(bench, "SMALL", {"mib": 1, "side": 32, "rounds": 1})
  op = kernels.OPS["short_conv"]._replace(small=({"b": 1, "t": 8, "e": 4, "w": 2},))
  monkeypatch.setattr(kernels, "OPS", {"short_conv": op})


def test_a_floor_is_the_slowest_resource_of_each_pass():
  first, second = Work(bytes=1e9, flops=3e9), Work(bytes=5e9, flops=6e9, exps=2e9)
  assert floors.seconds((first,), "float32", RATES) == (3.0, "products")
  assert floors.seconds((first,), "bfloat16", RATES) == (1.0, "memory")
  assert floors.seconds((first, second), "float32", RATES) == (9.0, "products")
  assert floors.seconds((Work(0, exps=1e9), Work(0)), "float32", RATES) == (1.0, "exp")


def test_floors_count_what_the_arrays_hold():
  """Bytes forward are those of the arguments and the results, of an op drawn for the purpose."""
  for name, op in kernels.OPS.items():
    sizes = {**op.small[0], "b": 2, "t": 16}
    given = name, tuple(sizes.items()), "float32"
    args = jax.eval_shape(lambda given=given: kernels.drawn.__wrapped__(*given))
    y = jax.eval_shape(lambda *args, op=op: op.run("auto", *args), *args)
    held = sum(z.size * z.dtype.itemsize for z in jax.tree.leaves((args, y)))
    counted = op.floor(**{z: sizes[z] for z in op.floor_sizes}, s=4).forward.bytes
    # parameters that no batch makes longer are left out, and so may be the last state
    per_row = sum(z.size * z.dtype.itemsize for z in jax.tree.leaves((args, y)) if z.shape[0] == 2)
    last = sum(z.size * z.dtype.itemsize for z in jax.tree.leaves(args) if z.shape[0] == 2 and 16 not in z.shape[1:2])
    assert per_row - last <= counted <= held + last, name


def test_floors_of_the_sizes_that_were_worked_out_by_hand():
  """In microseconds, on a device of 4.3 TB/s, 790 TFLOP/s and 4.18 T exp/s."""
  fast = Rates(bytes=4.3e12, flops_float32=790e12, flops_bfloat16=790e12, exps=4.18e12)
  micro = lambda work: floors.seconds((work,), "bfloat16", fast)[0] * 1e6
  scan = floors.selective_scan(b=8, t=2048, e=2048, n=16, g=1, s=2)
  assert micro(scan.forward) == pytest.approx(128, rel=0.01)
  gated = floors.gated_selective_scan(b=8, t=2048, e=2048, n=16, g=1, s=2)
  assert micro(gated.forward) == pytest.approx(144.5, rel=0.01)
  # z is read forward; backward it is read and its gradient written
  array = 8 * 2048 * 2048 * 2
  assert [gated[i].bytes - scan[i].bytes - (i + 1) * array for i in (0, 1)] == [2048 * 4, 2 * 2048 * 4]
  gates = floors.rg_lru(b=8, t=2048, e=2560, s=2)
  assert [micro(work) for work in gates] == pytest.approx([78, 137], rel=0.01)
  heads = [floors.ssd(b=16, t=2048, h=h, g=1, k=128, p=64, s=2).forward for h in (24, 48, 80)]
  assert [micro(work._replace(bytes=0)) for work in heads] == pytest.approx([51, 99, 164], rel=0.02)
  conv = floors.short_conv(b=8, t=2048, e=4096, s=2)
  assert [micro(work) for work in conv] == pytest.approx([62, 94], rel=0.01)
  assert micro(floors.lti(b=8, t=4096, e=512, n=0, s=4).forward) == pytest.approx(31, rel=0.01)


def test_gated_and_delta_rules_add_to_the_plain_one():
  sizes = {"b": 2, "t": 32, "h": 3, "k": 8, "p": 16, "s": 4}
  plain = floors.ssd(g=3, **sizes)
  gated, delta = floors.gated_linear_attention(**sizes), floors.delta_rule(**sizes)
  for more, passes in (((1, 2), gated), ((1, 2), delta)):
    for times, work, least in zip(more, passes, plain):
      one_array = 2 * 32 * 3 * 8 * 4
      assert 0 < work.bytes - least.bytes <= times * one_array
  assert [work.exps for work in gated] == [2 * 32 * 3 * 8, 2 * 2 * 32 * 3 * 8]
  assert all(work.flops > least.flops for work, least in zip(delta, plain))


def test_attention_counts_each_pair_once():
  forward, backward = floors.attention(b=1, t=4, h=1, k=2, s=4)
  assert (forward.flops, forward.exps, forward.bytes) == (10 * 8, 10, 4 * 32)
  assert (backward.flops, backward.bytes) == (10 * 20, 8 * 32)


@pytest.mark.parametrize(
  "argv, message",
  [
    (["--suite", "kernel"], "no suite kernel; choose from kernels"),
    (["--suite", "kernels", "--peers", "mamba"], "no peer mamba; choose from all, jax-linear-attention, fla-core"),
    (["--suite", "kernels", "--lengths", "512,1k"], "--lengths has 1k; it takes positive numbers"),
    (["--suite", "kernels", "--lengths", "0"], "--lengths has 0"),
    (["--suite", "decode", "--lengths", "512"], "--peers, --lengths and --plot are for --suite kernels"),
    (["--rounds", "0"], "--rounds=0; give at least 1"),
    (["--devices", "-1"], "--devices=-1; give at least 0"),
    (["--out", "."], "--out=.: give the name of a file"),
    (["--plot", "nowhere/a.png"], "--plot=nowhere/a.png: give the name of a file, in a folder that exists"),
  ],
)
def test_arguments_that_make_no_sense_are_one_line(argv, message, mistaken):
  mistaken(bench.main, argv, message)


def test_a_plot_without_kernels_ends_before_anything_is_timed(tiny, tmp_path, mistaken):
  plot = ["--plot", str(tmp_path / "a.png")]
  mistaken(bench.main, ["--suite", "kernels", "--filter", "no such", "--lengths", "4", *plot], "no kernel to plot")


def test_kernels_are_timed_beside_their_floor(tiny, tmp_path, capsys):
  out, picture = tmp_path / "a.jsonl", tmp_path / "a.png"
  argv = ["--suite", "kernels", "--filter", "ours, by_token", "--lengths", "4,8", "--rounds", "2"]
  bench.main([*argv, "--out", str(out), "--plot", str(picture)])
  assert picture.read_bytes().startswith(b"\x89PNG")
  rows = [json.loads(line) for line in out.read_text().splitlines()]
  assert [(row["name"], row["length"]) for row in rows] == [("ours, by_token", t) for t in (4, 4, 8, 8)]
  for row in rows:
    assert row["min_ms"] <= row["q1_ms"] <= row["median_ms"] <= row["q3_ms"] <= row["max_ms"]
    assert row["floor_ratio"] == pytest.approx(row["median_ms"] / row["floor_ms"])
    assert row["limit"] == "memory"
    assert float(row["bytes_per_s"]) > 0
  # as many tokens as there were
  assert "b=2 t=4 e=4 w=2" in rows[0]["group"]
  assert "b=1 t=8 e=4 w=2" in rows[-1]["group"]


def test_a_kernel_that_does_not_fit_is_left_out(tiny, monkeypatch, capsys):
  monkeypatch.setattr(case, "free_bytes", lambda: 64)
  bench.main(["--suite", "kernels", "--filter", "float32, forward ours, by_token", "--rounds", "1"])
  assert "ours, by_token: does not fit: it needs 0.0 GiB of 0.0" in capsys.readouterr().out


def test_a_kernel_that_cannot_run_says_why():
  given = "attention", tuple(kernels.OPS["attention"].small[0].items()), "float32"
  run = lambda *args: kernels.OPS["attention"].run("cudnn", *args)
  with pytest.raises(case.Missing, match="attention cannot run on cpu .cudnn: it needs an NVIDIA GPU"):
    kernels.timed(run, given, "forward")


def test_implementations_come_as_auto_tries_them(monkeypatch):
  impls = dict.fromkeys(("reference", "xla", "pallas_gpu", "pallas_tpu", "associative", "cudnn"))
  assert kernels.names(impls) == ["xla", "associative", "reference"]
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  monkeypatch.setattr(kernels.dispatch, "UNPROVEN", ("pallas_gpu",))
  assert kernels.names(impls) == ["cudnn", "associative", "xla", "reference", "pallas_gpu"]


def test_every_large_size_can_be_drawn(monkeypatch):
  for name, op in kernels.OPS.items():
    for sizes in (*op.small, *op.large):
      op.floor(**{z: sizes[z] for z in op.floor_sizes}, s=2)
      args = jax.eval_shape(lambda: kernels.drawn.__wrapped__(name, tuple(sizes.items()), "bfloat16"))  # noqa: B023
      if name in ("cauchy", "roesser"):  # of parameters alone
        continue
      assert args[0].shape[: 1 + (sizes["t"] > 1)] == ((sizes["b"], sizes["t"]) if sizes["t"] > 1 else (sizes["b"],))
      assert args[0].dtype == jax.numpy.bfloat16


@pytest.mark.parametrize("op", list(gpu_ops.PEERS))
def test_peers_lay_out_the_arguments_and_say_what_they_lack(op):
  sizes = {**kernels.OPS[op].small[0], "b": 1, "t": 8}
  for number, peer in enumerate(gpu_ops.PEERS[op]):
    assert peer.distribution in gpu_ops.DISTRIBUTIONS
    jax.eval_shape(lambda: peer.prepare(*kernels.drawn.__wrapped__(op, tuple(sizes.items()), "float32")))  # noqa: B023
    with pytest.raises(case.Missing, match="not installed|needs a GPU"):
      gpu_ops.timed(op_name=op, number=number, sizes=sizes, dtype="float32", mode="forward")


def test_a_worker_calls_as_often_as_it_is_asked():
  sizes = {"batch": 1, "length": 4, "width": 2, "state": 2}
  timed = own_process("scripts.peers.s5_upstream:recurrence", mode="forward", **sizes)
  assert bench.once(timed, 1) > 0
  assert bench.once(timed, 3) > 0
  assert timed.many is not None
