"""The tables of docs/scale.md: what a device holds, from shapes, and what small models on eight devices gather."""

import functools
import json
import sys

import jax
import pytest
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from scripts import scale
from tests import child
from tests.sources import ROOT
from training import sharding

# in a process of its own, which is told at its start that it has eight devices
GATHERS = """
import json, sys
from scripts import scale
found, params, _ = scale.compiled(*json.loads(sys.argv[1]))
print(json.dumps([len(found.get("all-gather", ())), *scale.gathered(found, params)]))
"""
CASE = scale.Case("mamba2_2.7b", "v5p-64", dict(fsdp=32), 128, 2048)
PARAMETERS = 2_702_599_680


once = functools.cache(functools.partial(scale.memory, CASE))


@pytest.fixture
def one_case(monkeypatch):
  assert CASE in scale.CASES
  monkeypatch.setattr(scale, "CASES", (CASE,))
  monkeypatch.setattr(scale, "memory", lambda case: dict(once()))


def test_fsdp_divides_what_a_device_holds(one_case, monkeypatch, capsys):
  monkeypatch.setattr(sys, "argv", ["scale.py", "--json"])
  scale.main()
  (row,) = json.loads(capsys.readouterr().out)
  assert scale.Case(*(row[field] for field in scale.Case._fields)) == CASE
  # small arrays are whole on every device
  share = 4 * PARAMETERS / 32
  assert share < row["parameters"] < 1.03 * share
  assert row["gradients"] == row["parameters"]
  assert row["optimizer"] == 2 * row["parameters"] + 8, "AdamW has two moments, and two counts"
  assert row["kept"] == 64 * (128 / 32) * 2048 * 2560 * 2, "bytes of bfloat16 at the inputs of 64 branches"


def test_the_page_has_the_row(one_case):
  page = (ROOT / "docs" / "scale.md").read_text()
  missing = [row for row in scale.memory_table() if row not in page]
  assert not missing


def test_a_parameter_is_known_by_its_shape():
  """Of a stack of three layers, divided by fsdp and tensor: a device has (3, 4, 3) of it, and (3, 8, 3) by fsdp."""
  mesh = AbstractMesh((1, 2, 1, 2), sharding.AXES)
  place = NamedSharding(mesh, PartitionSpec(None, "fsdp", "tensor"))
  params = {"stacked": jax.ShapeDtypeStruct((3, 8, 6), "float32", sharding=place)}
  gathered = lambda *shapes: scale.gathered({"all-gather": [f"f32[{shape}]" for shape in shapes]}, params)
  assert gathered("3,8,3", "8,3", "3,8", "1,3,8") == (4, 0)
  assert gathered("3,8,6", "8,6", "6,8", "1,8,6") == (0, 4)
  assert gathered("3,4,3", "4,3", "4,6", "8", "") == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", scale.MESHES, ids=lambda mesh: " x ".join(f"{axis} {n}" for axis, n in mesh.items()))
@pytest.mark.parametrize("name", scale.SMALL)
def test_parameters_are_gathered_by_fsdp_alone(name, mesh):
  # all of XLA's optimizations, as the page has them
  settings = dict(JAX_NUM_CPU_DEVICES="8", JAX_DISABLE_MOST_OPTIMIZATIONS="0", XLA_FLAGS="")
  out = child.python("-c", GATHERS, json.dumps([scale.SMALL[name], mesh]), **settings)
  gathers, by_fsdp, others = json.loads(out.splitlines()[-1])
  assert others == 0
  assert (by_fsdp > 0) == ("fsdp" in mesh)
  if set(mesh) == {"data"}:
    assert gathers == 0
