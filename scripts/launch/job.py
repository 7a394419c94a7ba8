"""What is submitted: files to write and commands to run, the same for --dry-run and for the real thing."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mistake import Mistake

# exit codes of main.py: another try would end in the same way
HOPELESS = (2, 3)
SAVED_AND_STOPPED = 75
DONE, MISTAKE = 0, 2
# of a JobSet and its pods: <name>-workers-<job>-<pod> is a host name, which has at most 63 characters
NAME = re.compile(r"[a-z]([-a-z0-9]{0,40}[a-z0-9])?")
WORKERS = "workers"
PORT = 8476
# seconds that a process may need to save, when others have ended or it was asked to
SAVING = 120


class Submission(NamedTuple):
  """Files by name, for the folder of --out, and the commands that submit them."""

  files: dict[str, str]
  commands: list[list[str]]


class Job(NamedTuple):
  """A run on several machines."""

  name: str
  folder: str  # of the checkout, on the machines
  arguments: list[str]  # of main.py
  nodes: int
  restarts: int
  grace: float = 60.0  # seconds that the others have to end by themselves after one has died

  @property
  def run(self) -> str:
    """Returns the command of one process, for a shell."""
    return shlex.join(["./dev", "run", *self.arguments])


def make(name: str, folder: str, arguments: Sequence[str], nodes: int, restarts: int, grace: float = 60.0) -> Job:
  """Checks the settings that all kinds of clusters share.

  Raises:
    Mistake: the name is not one that all clusters take, a number is out of its range, or --workdir is missing.
  """
  if not NAME.fullmatch(name):
    raise Mistake(f"--name {name!r}: use at most 42 lower case letters, digits and dashes, a letter first")
  if nodes < 1:
    raise Mistake(f"--nodes {nodes}: give at least 1")
  if restarts < 0:
    raise Mistake(f"--restarts {restarts}: give 0 or more")
  if not 0 <= grace < float("inf"):
    raise Mistake(f"--grace {grace}: give seconds, 0 or more")
  if not any(argument.split("=")[0].lstrip("-") == "workdir" for argument in arguments):
    raise Mistake("give the flags of main.py after --, and --workdir among them: a folder that all machines see")
  return Job(name, folder, list(arguments), nodes, restarts, grace)


def submit(commands: Sequence[Sequence[str]], out: Path) -> int:
  """Runs the commands that submit something; returns the first exit code that is not 0."""
  for command in commands:
    try:
      code = subprocess.run(command, cwd=out, check=False).returncode
    except FileNotFoundError:
      print(f"launch: {command[0]} is not installed here; --dry-run prints what to submit elsewhere", file=sys.stderr)
      return MISTAKE
    if code:
      return code
  return DONE


def supervised(job: Job, run: str) -> str:
  """Returns shell lines that start a process again where it was stopped or lost peers, as --restarts says."""
  hopeless = "|".join(map(str, (0, *HOPELESS)))
  return (
    f"tries=0\nwhile :; do\n  {run}\n  code=$?\n  case $code in {hopeless}) exit $code ;; esac\n"
    f'  [ "$tries" -lt {job.restarts} ] || exit $code\n  tries=$((tries + 1))\n  sleep 10\ndone\n'
  )


def slurm(
  job: Job, *, tasks: int, time: str, gpus: int, partition: str, warning: int, options: Sequence[str]
) -> Submission:
  """Writes an sbatch script: USR1 comes `warning` seconds before the time is up, the run saves, and is queued again.

  SLURM tells JAX which processes there are, `tasks` on each node. What was not stopped but failed is queued again
  `restarts` times.
  """
  extra = [f"--partition={partition}"] if partition else []
  extra += [f"--gpus-per-node={gpus}"] if gpus else []
  lines = [
    f"--job-name={job.name}",
    f"--nodes={job.nodes}",
    f"--ntasks-per-node={tasks}",
    f"--time={time}",
    # to the steps that srun starts, where main.py is
    f"--signal=USR1@{warning}",
    "--requeue",
    "--open-mode=append",
    f"--output={job.name}-%j.txt",
    *extra,
    *options,
  ]
  head = "".join(f"#SBATCH {line}\n" for line in lines)
  hopeless = "|".join(map(str, (0, *HOPELESS)))
  script = (
    f"#!/bin/bash\n{head}cd {shlex.quote(job.folder)} || exit 2\n"
    # the batch shell gets the signal too where a cluster is set up so, and must outlive it
    "trap : USR1\n"
    # the first task to end leaves the others time to finish a save, or to notice that it has died
    f"srun --kill-on-bad-exit=0 --wait={SAVING} {job.run} &\nstep=$!\nwait $step\ncode=$?\n"
    "while kill -0 $step 2>/dev/null; do wait $step; code=$?; done\n"
    f"case $code in\n  {hopeless}) exit $code ;;\n  {SAVED_AND_STOPPED}) scontrol requeue $SLURM_JOB_ID ;;\n"
    f'  *) [ "${{SLURM_RESTART_COUNT:-0}}" -lt {job.restarts} ] && scontrol requeue $SLURM_JOB_ID ;;\n'
    "esac\nexit $code\n"
  )
  return Submission({f"{job.name}.sbatch": script}, [["sbatch", f"{job.name}.sbatch"]])


def tpu_vm(job: Job, *, zone: str, project: str) -> Submission:
  """Writes one command for all workers of a TPU VM, which JAX finds by itself; it outlives the connection."""
  script = f"cd {shlex.quote(job.folder)} || exit 2\n" + supervised(job, job.run)
  log = f"{job.name}.log"
  remote = f"nohup sh -c {shlex.quote(script)} > {log} 2>&1 < /dev/null &"
  where = ["--zone", zone, *(["--project", project] if project else [])]
  command = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", job.name, *where, "--worker=all", f"--command={remote}"]
  return Submission({}, [command])


def gke(
  job: Job, *, image: str, accelerator: str, topology: str, chips: int, gpus: int, slices: int, claim: str
) -> Submission:
  """Writes a JobSet with one pod a node; it is started again as a whole, but not where main.py says it is hopeless.

  Args:
    accelerator: of the node selector: a TPU's, such as tpu-v5-lite-podslice, with `topology` and `chips` a node; or a
      GPU's, such as nvidia-h100-80gb, with `gpus` a node.
    slices: of TPUs, each of `job.nodes` nodes.
    claim: a PersistentVolumeClaim, mounted at /runs.
  """
  resource = {"google.com/tpu": chips} if chips else {"nvidia.com/gpu": gpus}
  selector = {"cloud.google.com/gke-tpu-accelerator": accelerator, "cloud.google.com/gke-tpu-topology": topology}
  environment: list[dict[str, Any]] = []
  run = job.run
  if not chips:
    selector = {"cloud.google.com/gke-accelerator": accelerator}
    host = f"{job.name}-{WORKERS}-0-0.{job.name}"
    environment = [
      {"name": "JAX_COORDINATOR_ADDRESS", "value": f"{host}:{PORT}"},
      {"name": "JAX_NUM_PROCESSES", "value": str(job.nodes)},
    ]
    # Kubernetes numbers the pods of an indexed job
    run = f"JAX_PROCESS_ID=$JOB_COMPLETION_INDEX {run}"
  pod = _pod(job, run, image, selector, resource, environment, claim)
  exits = {"containerName": "main", "operator": "In", "values": list(HOPELESS)}
  template = {
    "parallelism": job.nodes,
    "completions": job.nodes,
    "completionMode": "Indexed",
    "backoffLimit": 0,
    "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": exits}]},
    "template": {"spec": pod},
  }
  manifest = {
    "apiVersion": "jobset.x-k8s.io/v1alpha2",
    "kind": "JobSet",
    "metadata": {
      "name": job.name,
      # one slice, one job
      "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"} if chips else {},
    },
    "spec": {
      "network": {"enableDNSHostnames": True},
      "failurePolicy": {
        "maxRestarts": job.restarts,
        "rules": [{"name": "hopeless", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
      },
      "replicatedJobs": [{"name": WORKERS, "replicas": slices, "template": {"spec": template}}],
    },
  }
  # JSON is YAML
  return Submission(
    {f"{job.name}.json": json.dumps(manifest, indent=2)}, [["kubectl", "apply", "-f", f"{job.name}.json"]]
  )


def _pod(
  job: Job,
  run: str,
  image: str,
  selector: dict[str, str],
  resource: dict[str, int],
  environment: list[dict[str, Any]],
  claim: str,
) -> dict[str, Any]:
  container = {
    "name": "main",
    "image": image,
    "command": ["sh", "-c", f"cd {shlex.quote(job.folder)} && {run}"],
    "env": environment,
    "ports": [{"containerPort": PORT}],
    "resources": {"limits": resource},
    "volumeMounts": [{"name": "runs", "mountPath": "/runs"}],
  }
  return {
    "restartPolicy": "Never",
    "nodeSelector": selector,
    "terminationGracePeriodSeconds": SAVING,
    "containers": [container],
    "volumes": [{"name": "runs", "persistentVolumeClaim": {"claimName": claim}}],
  }
