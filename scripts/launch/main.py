"""Submits a run of main.py to a cluster; with --dry-run prints what would be submitted.

  ./dev launch slurm --name NAME --nodes 2 --gpus 8 --time 24:00:00 -- --config FILE --workdir /shared/runs/x
  ./dev launch gke   --name NAME --nodes 4 --image IMAGE --accelerator tpu-v5-lite-podslice --topology 4x4 --chips 4 …
  ./dev launch tpu   --name TPU --zone us-west4-a -- …
  ./dev launch ssh   --name NAME --hosts a b -- …
  ./dev launch local --name NAME --processes 1 -- …

Flags of main.py follow `--`; --workdir is a folder that all machines see. The run saves and goes on: SLURM sends USR1
before the time is up and the job queues itself again; a JobSet, a TPU VM's loop, ssh and local start all processes
again when one was stopped or died, --restarts times. Exit codes 2 and 3 of main.py (a mistake, a loss that is not
finite) end it. The flags and the config are read here before anything is submitted, unless --config is an absolute path
that only the machines have.
"""

import argparse
import contextlib
import math
import re
import shlex
import sys
from pathlib import Path

from arguments import Parser, at_least
from mistake import Mistake
from scripts.launch import job as job_lib
from scripts.launch import supervisor
from training import flags as flags_lib
from training import workdir as workdir_lib

ROOT = Path(__file__).resolve().parents[2]


def parse(argv: list[str] | None) -> argparse.Namespace:
  """Parses the command line; what follows `--` is main.py's."""
  form = argparse.RawDescriptionHelpFormatter
  parser = Parser(prog="launch", description=__doc__, formatter_class=form)
  kinds = parser.add_subparsers(dest="kind", required=True)
  shared = Parser(add_help=False)
  shared.add_argument("--name", required=True, help="of the job; of the TPU VM, with tpu")
  shared.add_argument("--folder", help="of the checkout on the machines; by default the one here, in an image /code")
  shared.add_argument("--out", type=Path, default=Path(), help="folder of the files that are submitted")
  shared.add_argument("--restarts", type=int, default=10, help="after failures")
  shared.add_argument("--dry-run", action="store_true", help="print and submit nothing")
  shared.add_argument("flags", nargs="*", help="flags of main.py, after --")
  slurm = kinds.add_parser("slurm", parents=[shared])
  slurm.add_argument("--nodes", type=int, default=1)
  slurm.add_argument("--tasks", type=at_least(1), default=1, help="processes of a node; one sees all of its GPUs")
  slurm.add_argument("--gpus", type=at_least(0), default=0, help="of a node")
  slurm.add_argument("--time", default="24:00:00")
  slurm.add_argument("--partition", default="")
  slurm.add_argument("--warning", type=at_least(0), default=300, help="seconds for saving before the time is up")
  slurm.add_argument("--sbatch", action="append", default=[], help="a further option, e.g. --sbatch=--account=x")
  gke = kinds.add_parser("gke", parents=[shared])
  gke.add_argument("--nodes", type=int, default=1, help="of a slice")
  gke.add_argument("--image", required=True, help="with the checkout in --folder")
  gke.add_argument("--accelerator", required=True, help="of the node selector")
  gke.add_argument("--topology", default="", help="of a TPU slice, e.g. 4x4")
  gke.add_argument("--chips", type=at_least(0), default=0, help="TPU chips of a node")
  gke.add_argument("--gpus", type=at_least(0), default=0, help="of a node")
  gke.add_argument("--slices", type=at_least(1), default=1)
  gke.add_argument("--claim", default="runs", help="PersistentVolumeClaim, which is mounted at /runs")
  tpu = kinds.add_parser("tpu", parents=[shared])
  tpu.add_argument("--zone", required=True)
  tpu.add_argument("--project", default="")
  ssh = kinds.add_parser("ssh", parents=[shared])
  ssh.add_argument("--hosts", nargs="+", required=True)
  local = kinds.add_parser("local", parents=[shared])
  local.add_argument("--processes", type=int, default=1, help="on this machine, whose devices they all see")
  for kind in (ssh, local):
    kind.add_argument("--grace", type=float, default=60.0, help="seconds from one's death until the others are killed")
  return parser.parse_args(argv)


def submission(args: argparse.Namespace) -> tuple[job_lib.Job, job_lib.Submission]:
  """Makes what the arguments ask for; raises a Mistake where they do not fit together."""
  folder = args.folder or ("/code" if args.kind == "gke" else str(ROOT))
  if args.kind == "local" and args.processes < 1:
    raise Mistake(f"--processes {args.processes}: give at least 1")
  counts = {"ssh": lambda: len(args.hosts), "local": lambda: args.processes}
  nodes = counts.get(args.kind, lambda: getattr(args, "nodes", 1))()
  job = job_lib.make(args.name, folder, args.flags, nodes, args.restarts, getattr(args, "grace", 60.0))
  if args.kind == "slurm":
    options = dict(tasks=args.tasks, time=args.time, gpus=args.gpus, partition=args.partition, warning=args.warning)
    return job, job_lib.slurm(job, **options, options=args.sbatch)
  if args.kind == "tpu":
    return job, job_lib.tpu_vm(job, zone=args.zone, project=args.project)
  if args.kind == "ssh":
    return job, job_lib.Submission({}, supervisor.over_ssh(job, args.hosts))
  if args.kind == "local":
    return job, job_lib.Submission({}, supervisor.here(job))
  if bool(args.chips) == bool(args.gpus):
    raise Mistake("gke: give either --chips, of a node with TPUs, or --gpus")
  if bool(args.chips) != bool(args.topology):
    raise Mistake("gke: --chips and --topology belong together, e.g. --chips 4 --topology 4x4")
  if args.slices > 1 and not args.chips:
    raise Mistake(f"gke: --slices {args.slices} is for TPUs; give --nodes")
  if args.chips:
    check_topology(args.topology, args.chips, args.nodes)
  names = ("image", "accelerator", "topology", "chips", "gpus", "slices", "claim")
  return job, job_lib.gke(job, **{name: getattr(args, name) for name in names})


def check_topology(topology: str, chips: int, nodes: int) -> None:
  """Raises a Mistake where so many nodes do not have the chips of a TPU slice's topology."""
  if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", topology):
    raise Mistake(f"gke: --topology {topology!r}: give the chips along each side of a slice, e.g. 4x4 or 2x2x4")
  total = math.prod(map(int, topology.split("x")))
  if chips < 1 or total % chips:
    raise Mistake(f"gke: --topology {topology} has {total} chips, which nodes of --chips {chips} cannot share evenly")
  if nodes != total // chips:
    raise Mistake(
      f"gke: --topology {topology} has {total} chips, which are {total // chips} nodes of --chips {chips}; "
      f"--nodes {nodes} must be {total // chips}"
    )


def check_flags(job: job_lib.Job, kind: str) -> None:
  """Reads the flags of main.py and their config as each process will; raises a Mistake where it would end with one.

  A config that only the machines have, by an absolute path or in a run's folder, is left to them.
  """
  folder = Path(job.folder)
  # `local` stays where it was called, all others go to the checkout
  here = Path() if kind == "local" else folder if folder.is_dir() else ROOT
  values = {}
  for word, following in zip(job.arguments, [*job.arguments[1:], ""]):
    name, equals, value = word.partition("=")
    values[name.lstrip("-")] = value if equals else following
  config, workdir = values.get("config", "").partition(":")[0], Path(values["workdir"]).expanduser()
  with contextlib.chdir(here):
    at_hand = (
      Path(config).exists() or not Path(config).is_absolute() if config else (workdir / workdir_lib.CONFIG).is_file()
    )
    if at_hand:
      flags_lib.parse(["launch", *job.arguments])


def main(argv: list[str] | None = None) -> int:
  """Submits, or prints. Exit code: 2 for wrong arguments, of ssh that of the run, otherwise that of what submits."""
  args = parse(argv)
  try:
    job, made = submission(args)
    check_flags(job, args.kind)
    if args.dry_run:
      for name, text in made.files.items():
        print(f"# {args.out / name}\n{text}")
      there = f"cd {shlex.quote(job.folder)} && "
      hosts = [f"{host}: {there}" for host in args.hosts] if args.kind == "ssh" else [""] * len(made.commands)
      for host, command in zip(hosts, made.commands):
        print(f"{host}{shlex.join(command)}")
      return 0
    args.out.mkdir(parents=True, exist_ok=True)
    for name, text in made.files.items():
      (args.out / name).write_text(text)
    if args.kind == "ssh":
      return supervisor.run_over_ssh(job, args.hosts, args.out)
    return supervisor.run_here(job, args.out) if args.kind == "local" else job_lib.submit(made.commands, args.out)
  except (Mistake, OSError) as error:
    print(f"launch: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
  sys.exit(main())
