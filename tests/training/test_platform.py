"""What is settled before JAX starts."""

import os
import sys

import pytest

from tests import child
from training import platform

# two buffers of 64 MiB, more than an arena of a thread of XLA's takes in
FAULTS = """
import resource, statistics
from training import platform
platform.prepare()
import jax, jax.numpy as jnp
x, w = jnp.ones((16, 128, 8192)), jnp.ones(4097)
step = jax.jit(lambda x, w: jnp.fft.irfft(jnp.fft.rfft(x) * w)).lower(x, w).compile()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt * resource.getpagesize()
new = []
for _ in range(16):
  before = faults()
  step(x, w).block_until_ready()
  new.append((faults() - before) / x.nbytes)
print(statistics.median(new[5:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator that is told to keep memory is glibc's")
def test_the_memory_of_a_step_serves_the_next_without_page_faults():
  assert float(child.python("-c", FAULTS)) < 0.1, "of a buffer; it is 2 where all is mapped again in each call"


def test_flags_of_the_user_stay_and_virtual_devices_have_time(monkeypatch):
  monkeypatch.setattr(platform, "_split_cpu", lambda devices: None)
  monkeypatch.setattr(platform, "_keep_freed_memory", lambda: None)
  monkeypatch.setenv("NPROC", "2")
  monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_prefer_vector_width=256")
  platform.prepare(0)
  assert os.environ["XLA_FLAGS"] == "--xla_cpu_prefer_vector_width=256"
  platform.prepare(2)
  _, wait = os.environ["XLA_FLAGS"].split()
  assert wait.startswith("--xla_cpu_collective_call_terminate_timeout_seconds=")
