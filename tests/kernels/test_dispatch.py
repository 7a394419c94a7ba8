import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import dispatch
from tests import child
from tests.refused import refused


def impls(**reasons):
  """Implementations that return their own name, and why each cannot run."""
  return {name: (lambda name=name: name, lambda *_, reason=reason: reason) for name, reason in reasons.items()}


def pick(want="auto", **reasons):
  return dispatch.pick("op", impls(**reasons), want)()


def test_the_cpu_prefers_a_loop_and_accelerators_a_parallel_form(monkeypatch):
  assert pick(reference=None, associative=None, xla=None) == "xla"
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert pick(reference=None, associative=None, xla=None) == "associative"
  assert pick(reference=None, associative=None, cudnn=None) == "cudnn"


def test_what_no_device_has_run_is_taken_only_by_name(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert pick(associative=None, pallas_gpu=None) == "associative"
  assert pick("pallas_gpu", associative=None, pallas_gpu=None) == "pallas_gpu"
  with dispatch.use("pallas_gpu"):
    assert pick(associative=None, pallas_gpu=None) == "pallas_gpu"
    assert pick(associative=None, pallas_gpu="in 32 bits") == "associative"


def test_auto_skips_what_cannot_run():
  assert pick(xla="odd length", reference=None) == "reference"


def test_a_rule_sees_the_arguments():
  even = {"xla": (len, lambda x: "odd length" if len(x) % 2 else None), "reference": (list, dispatch.always)}
  assert dispatch.pick("op", even, "auto", "ab") is len
  assert dispatch.pick("op", even, "auto", "abc") is list


def test_a_named_implementation_that_cannot_run_says_why():
  with pytest.raises(
    ValueError, match=r"op cannot run on cpu \(xla: odd length\); other choices: \['auto', 'reference'\]"
  ):
    pick("xla", xla="odd length", reference=None)


def test_when_none_can_run_every_reason_is_given():
  refused("xla: odd length; reference: too long", pick, xla="odd length", reference="too long")


def test_a_wrong_name_lists_the_choices():
  refused(r"op: no implementation 'triton'; choose from \['auto', 'xla'\]", pick, "triton", xla=None)


def test_a_forced_implementation_goes_first_where_it_exists():
  with dispatch.use("reference"):
    assert pick(xla=None, reference=None) == "reference"
    assert pick(xla=None, associative=None) == "xla"
    assert pick(xla=None, reference="too long") == "xla"
    assert pick("xla", xla=None, reference=None) == "xla"
  assert pick(xla=None, reference=None) == "xla"


def test_where_a_plain_form_is_forced_no_kernel_is_chosen(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
  assert pick(associative=None, cudnn=None) == "cudnn"
  with dispatch.use("xla"):
    assert pick(associative=None, cudnn=None) == "associative"
    assert pick(xla="odd length", associative=None, cudnn=None) == "associative"


def test_forcing_a_wrong_name_lists_the_choices():
  refused("no implementation 'refrence'; choose from .*'reference'", dispatch.force, "refrence")


def test_the_environment_forces_an_implementation():
  program = "from kernels import linear_scan as o, dispatch; print(dispatch.pick('o', o.IMPLS, 'auto').__module__)"
  assert child.python("-c", program, KERNEL_IMPL="reference").strip() == "kernels.linear_scan.reference"


def test_a_mistyped_environment_lists_the_choices():
  with pytest.raises(AssertionError, match="no implementation 'refrence'; choose from .*'reference'"):
    child.python("-c", "from kernels import dispatch", KERNEL_IMPL="refrence")


@pytest.mark.slow
@pytest.mark.parametrize("program", ["on_a_mesh", "convolutions_on_a_mesh"])
def test_ops_run_on_a_mesh(program):
  child.python("-m", f"tests.kernels.{program}", JAX_NUM_CPU_DEVICES="4")


@pytest.mark.parametrize(
  "sizes, mesh, cut",
  [
    (dict(b=8, t=6, e=4), dict(data=2, fsdp=2, tensor=2), dict(b=("data", "fsdp"), e=("tensor",))),
    (dict(b=2, t=6, e=4), dict(data=2, fsdp=2, tensor=1), dict(b=("data",), e=("tensor",))),
    (dict(b=1, e=3), dict(data=2, tensor=2), dict(e=())),
    # a group belongs to certain channels, so both are cut or neither
    (dict(b=2, e=4, g=2), dict(data=2, tensor=4), dict(b=("data",), e=(), g=())),
    (dict(b=2, e=4, g=1), dict(data=2, tensor=4), dict(b=("data",), e=("tensor",))),
  ],
)
def test_a_mesh_axis_cuts_what_it_divides(sizes, mesh, cut):
  assert dispatch.cut(sizes, mesh) == cut


def test_what_was_taken_and_why_nothing_else_is_told(monkeypatch):
  monkeypatch.setattr(dispatch, "platform", lambda: "gpu")
  impls = {
    "cudnn": (lambda x: "cudnn", lambda x: "it is an int" if isinstance(x, int) else None),
    "pallas_gpu": (lambda x: "pallas_gpu", lambda x: None),
    "pallas_tpu": (lambda x: "pallas_tpu", lambda x: None),
    "xla": (lambda x: "xla", lambda x: None),
    "reference": (lambda x: "reference", lambda x: None),
  }
  with dispatch.watch() as chosen:
    dispatch.pick("op", impls, "auto", 1)
    dispatch.pick("other", impls, "auto", 1.0)
    dispatch.pick("plain", impls, "reference", 1)
  dispatch.pick("later", impls, "auto", 1)
  untried = "not pallas_gpu: no device has proven it for no numbers; KERNEL_IMPL takes it"
  assert dispatch.describe(chosen) == (
    f"op: xla (not cudnn: it is an int; {untried}); other: cudnn ({untried}); plain: reference ({untried})"
  )
  with dispatch.watch() as chosen:
    for x in (1, 1.0, 1):
      dispatch.pick("op", impls, "auto", x)
  assert dispatch.describe(chosen) == f"op: cudnn and xla ({untried})"


def test_what_a_device_has_proven_is_taken_for_these_numbers_of_this_op_alone(monkeypatch):
  monkeypatch.setattr(dispatch, "platform", lambda: "gpu")
  monkeypatch.setattr(dispatch, "PROVEN", {"pallas_gpu": {"op": ["bfloat16"]}})
  impls = {name: (lambda *args, name=name: name, dispatch.always) for name in ("pallas_gpu", "xla")}
  taken = lambda op, *types: dispatch.pick(op, impls, "auto", [np.ones(2, t) for t in types], None, 3)()
  with dispatch.watch() as chosen:
    # decays and states are often wider than the tokens
    assert taken("op", "float32", jnp.bfloat16, "int32") == "pallas_gpu"
    assert taken("op", "float32", "float32") == "xla"
    assert taken("op", "complex64", jnp.bfloat16) == "xla"
    assert taken("other", jnp.bfloat16) == "xla"
  assert chosen.types == {
    ("op", "pallas_gpu"): {"bfloat16"},
    ("op", "xla"): {"float32", "complex64"},
    ("other", "xla"): {"bfloat16"},
  }
  assert "other: xla (not pallas_gpu: no device has proven it for bfloat16; KERNEL_IMPL takes it)" in (
    dispatch.describe(chosen)
  )
