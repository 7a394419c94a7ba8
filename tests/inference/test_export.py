"""Exported programs: they run in a process that cannot import this code base, and give what the model gives."""

import os
import re
import subprocess
import sys
from pathlib import Path

import flatbuffers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.model import build_model
from inference import export
from mistake import Mistake
from tests import sources
from tests.training.toy import Task

PROMPT, GOES_ON = [3, 1, 4, 1, 5], [2, 6]


@pytest.fixture(scope="module")
def model():
  letters = {"m": {"name": "mamba", "state": 2}, "a": {"name": "softmax", "heads": 2}}
  body = {"name": "stack", "pattern": "ma", "depth": 2, "letters": letters}
  made = build_model(Task(), width=8, body=body, embed={"name": "tokens"}, head={"name": "lm"})
  return made, made.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))


@pytest.mark.slow
def test_a_folder_runs_without_this_code_base_as_its_page_says(model, tmp_path):
  made, variables = model
  export.write(tmp_path / "exported", made, variables, prompt=8, max_len=16, platforms=("cpu", "cuda", "tpu"))
  (code,) = re.findall(r"```python\n(.*?)```", (sources.ROOT / "docs" / "export.md").read_text(), re.S)
  code = (
    code.replace("[104, 105]", repr(PROMPT)).replace("range(20)", repr(GOES_ON)).replace("int(logits.argmax())", "_")
  )
  code += "\nimport sys\nnumpy.save('logits.npy', logits)\nassert not {'hybrids', 'flax', 'kernels'} & {*sys.modules}\n"
  environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(flatbuffers.__file__).parents[1])}
  done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  expected = made.apply(variables, jnp.array([PROMPT + GOES_ON]))[:, -1]
  np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  "settings, message", [({"batch": 0}, "--batch=0"), ({"platforms": ("gpu",)}, "no 'gpu'; choose from cpu, cuda")]
)
def test_mistakes_are_named_and_write_nothing(model, tmp_path, settings, message):
  with pytest.raises(Mistake, match=message):
    export.write(tmp_path / "exported", *model, **settings)
  assert not (tmp_path / "exported").exists()
