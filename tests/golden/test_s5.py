"""S5, Event-SSM and LRU beside lindermanlab/S5, their authors' event-ssm, and minimal-LRU."""

import jax.numpy as jnp
import pytest

from hybrids.mixer import build
from layers.event_pool import event_pool
from tests.golden.compare import check, entries_of, near, read


@pytest.mark.parametrize("kind, disc", [("zoh", "zoh"), ("bilinear", "bilinear"), ("both_ways", "zoh")])
def test_s5_is_the_authors(kind, disc):
  given, *rest = read("s5", f"{kind}/")
  n, d = given["B_re"].shape
  mixer = build("s5", width=d, state=2 * n, disc=disc, activation="none", bidirectional=kind == "both_ways")

  def run(p):
    params = {name: value for name, value in p.items() if name != "x"} | {"D": jnp.zeros(d)}
    return (mixer.apply({"params": params}, p["x"][None])[0],)

  check(run, given, *rest)


EVENTS = "zoh", "dirac", "async"


@pytest.mark.parametrize("disc", EVENTS)
def test_event_ssm_is_the_authors(disc):
  given, *rest = read("event_ssm", f"{disc}/")
  n, d, _ = given["B"].shape
  mixer = build("event_ssm", width=d, state=2 * n, disc=disc, activation="none")

  def run(p):
    params = {f"{name}_{part}": p[name][..., i] for name in "BC" for i, part in enumerate(("re", "im"))}
    params |= {"lam_re": p["Lambda_re"], "lam_im": p["Lambda_im"], "D": p["D"], "log_dt": p["log_step"][:, 0]}
    return (mixer.apply({"params": params}, p["x"][None], side={"dt": p["dt"][None]})[0],)

  check(run, given, *rest)


@pytest.mark.parametrize("ours, theirs", [("first", "last"), ("mean", "avgpool"), ("time", "timepool")])
def test_events_are_pooled_as_by_the_authors(ours, theirs):
  given, _, _, _ = read("event_ssm", f"{EVENTS[0]}/")
  pooled = entries_of("event_ssm", f"pool/{theirs}/")
  x, dt, _ = event_pool(jnp.asarray(given["x"])[None], jnp.asarray(given["dt"])[None], stride=3, mode=ours)
  near(x[0], pooled["x"], "x")
  near(dt[0], pooled["dt"], "dt")


# without optimizations the gradient of the angles is rounded by 4e-5
@pytest.mark.optimized
def test_lru_is_the_one_of_minimal_lru():
  given, *rest = read("lru")
  n, d = given["B_re"].shape
  mixer = build("lru", width=d, state=n, activation="none")

  def run(p):
    return (mixer.apply({"params": {name: value for name, value in p.items() if name != "x"}}, p["x"][None])[0],)

  check(run, given, *rest)
