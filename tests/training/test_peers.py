"""What a process writes when another one of its run is gone; tests/faults.py kills real ones."""

import pytest

from training import peers, peers_filter

DUMP = """\
E1129 16:51:07.322502   32382 preemption_sync_manager.cc:159] Failed to cancel preemption barrier:
:UNKNOWN:Error received from peer  {grpc_status:14}
E1129 16:51:07.322530   32382 coordination_service_agent.cc:289] Polled an error from coordination service.
F1129 16:51:07.322539   32382 client.h:80] Terminating process because the JAX distributed service detected fatal \
errors. This most likely … absl::Status: UNAVAILABLE: The following tasks are unhealthy:
1
*** Check failure stack trace: ***
    @     0x7f8601040634  absl::lts_20260107::log_internal::LogMessage::SendToLog()
"""
OTHERS = """\
W1129 16:51:07.322449   32382 gpu_timer.cc:1] a line of another part of JAX
that has two lines
a warning of ours
"""


def lines(text):
  return list(peers_filter.filtered(text.splitlines(keepends=True)))


def test_the_dump_of_jax_becomes_one_line_and_all_else_stays():
  out = lines(OTHERS + DUMP)
  assert out[:3] == OTHERS.splitlines(keepends=True)
  assert len(out) == 4
  assert out[3].startswith("error: another process of this run has died")
  assert "UNAVAILABLE: The following tasks are unhealthy" in out[3]
  assert "Start all of them again" in out[3]


def test_the_line_comes_once():
  own = peers_filter.message("Gloo AllGather failed") + "\n"
  assert lines(own + DUMP) == [own]
  assert len(lines(DUMP + own)) == 1
  assert lines(DUMP + "error: another\n")[1:] == ["error: another\n"]


@pytest.mark.parametrize(
  "error, code",
  [
    (RuntimeError("Gloo AllGather failed: Connection closed by peer"), 4),
    # of Orbax, which the process of a full disk has left
    (TimeoutError("Timed out while waiting for async_write_complete barrier."), 4),
    (TimeoutError("timed out"), None),
    (RuntimeError("shapes do not match"), None),
    (OSError("Connection refused"), None),
  ],
)
def test_an_exception_that_means_a_lost_process_is_known(error, code, monkeypatch):
  codes = []
  monkeypatch.setattr(peers, "several", lambda: True)
  monkeypatch.setattr(peers, "_end", codes.append)
  peers.end_if_lost(error)
  assert codes == ([] if code is None else [code])
