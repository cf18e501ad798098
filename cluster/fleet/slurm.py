"""A Slurm batch script: a head on the first node, workers that rejoin on the others, and the recipe as its driver."""

from __future__ import annotations

import shlex

from gristmill.cluster.fleet.settings import Fleet, Slurm
from gristmill.shards.errors import UserError

_BODY = r"""
set -euo pipefail

for file in "$RAY_AUTH_TOKEN_PATH" ${AWS_SHARED_CREDENTIALS_FILE:+"$AWS_SHARED_CREDENTIALS_FILE"}; do
  if [ "$(stat -L -c %a "$file" 2>/dev/null)" != 600 ]; then
    echo "gristmill: $file is missing or others may read it; expected a file of mode 0600" >&2
    exit 2
  fi
done
cd "$CHECKOUT"

# Ports of this job's own, since jobs of several users may share a machine. They repeat after 250 job ids,
# and are below those that the system gives to connections.
port=$((20000 + SLURM_JOB_ID % 250 * 50))
dashboard=$((port + 1))
scratch=/tmp/gristmill-$SLURM_JOB_ID
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")

# In the background or in $(...) only, so that signals reach srun itself.
step() { exec srun --export=ALL --overlap --ntasks-per-node=1 --cpu-bind=none --kill-on-bad-exit=0 "$@"; }

own_address() {  # the first address that other machines can reach
  for address in $(hostname --ip-address) $(hostname -I); do
    case $address in 127.* | *:*) ;; *) echo "$address" && return ;; esac
  done
  echo 127.0.0.1
}

lead() {  # only its own processes end with it: `ray stop` would end those of other jobs too
  ray start --head --block --disable-usage-stats --temp-dir="$scratch" \
    --node-ip-address="$head_address" --port="$port" --num-cpus="$HEAD_CPUS" --num-gpus="$GPUS" \
    --dashboard-host=127.0.0.1 --dashboard-port="$dashboard" \
    --dashboard-agent-listen-port="$((port + 2))" --ray-client-server-port="$((port + 3))" &
  child=$!
  trap 'kill "$child" 2>/dev/null || true; wait "$child" || true; exit 0' TERM INT
  wait "$child"
}

worker() {
  exec python -m gristmill.cluster.supervisor "$RAY_ADDRESS" \
  --temp-dir="$scratch" --num-cpus="$CPUS" --num-gpus="$GPUS" \
    --dashboard-agent-listen-port="$((port + 4 + SLURM_PROCID))"
}

export port dashboard scratch
export -f own_address lead worker
first=${nodes[0]}
head_address=$(step --nodes=1 --ntasks=1 --nodelist="$first" bash -c own_address)
export head_address RAY_ADDRESS=$head_address:$port

steps=() driver=
finish() {
  code=$?
  trap - EXIT TERM
  [ -z "$driver" ] || kill -TERM "$driver" 2>/dev/null || true
  for pid in ${steps[@]+"${steps[@]}"}; do kill -TERM "$pid" 2>/dev/null || true; done
  wait || true
  exit "$code"
}
trap finish EXIT

step --nodes=1 --ntasks=1 --nodelist="$first" bash -c lead &
steps+=($!)
for attempt in {1..60}; do
  ray health-check --address "$RAY_ADDRESS" >/dev/null 2>&1 && break
  if [ "$attempt" = 60 ] || ! kill -0 "${steps[0]}" 2>/dev/null; then
    echo "gristmill: the head on $first does not answer at $RAY_ADDRESS" >&2
    exit 1
  fi
  sleep 1
done

if others=$((${#nodes[@]} - 1)) && [ "$others" -gt 0 ]; then
  step --no-kill --nodes="$others" --ntasks="$others" --nodelist="$(IFS=, && echo "${nodes[*]:1}")" bash -c worker &
  steps+=($!)
fi
echo "gristmill: dashboard on $first, loopback only: ssh -L $dashboard:127.0.0.1:$dashboard $first" >&2

# Slurm sends TERM before the time limit: the driver ends, and the job is requeued. Committed shards are kept.
again=
trap 'again=1; kill -TERM "$driver" 2>/dev/null || true' TERM
"${command[@]}" &
driver=$!
[ -z "$again" ] || kill -TERM "$driver"  # the signal came before its number was known here
# A wait that the signal interrupts ends with 143; the last one, after the driver's end, has the driver's own code.
while kill -0 "$driver" 2>/dev/null; do wait "$driver" || true; done
code=0
wait "$driver" || code=$?
driver=
if [ -n "$again" ] && [ "$code" != 0 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
"""


def slurm(fleet: Fleet) -> str:
    """Return the script for ``sbatch``. It names the token's file, and rejects one that other users can read.

    Raises:
        UserError: the fleet has no recipe, which a batch job needs.
    """
    if fleet.recipe is None:
        raise UserError("recipe is missing: a batch job needs one; expected for example recipe=configs/distill.yaml")
    here = fleet.slurm
    lines = [f"export {name}={shlex.quote(value)}" for name, value in fleet.environment().items()]
    lines += ["unset RAY_AUTH_TOKEN", f"export RAY_AUTH_TOKEN_PATH={_path(fleet.token.file)}"]
    if fleet.storage.credentials_file is not None:
        lines.append(f"export AWS_SHARED_CREDENTIALS_FILE={_path(fleet.storage.credentials_file)}")
    if here.venv is not None:
        lines.append(f'export PATH={_path(here.venv)}/bin:"$PATH"')
    lines += [
        f"export CHECKOUT={_path(here.checkout)}",
        'export PYTHONPATH="$CHECKOUT"',
        # The driver, the head's own processes and the dashboard share the first node with workers.
        f"export CPUS={here.cpus} HEAD_CPUS={max(1, here.cpus - 2)} GPUS={here.gpus}",
        f"command=({shlex.join(fleet.command())})",
    ]
    return "#!/bin/bash\n" + "\n".join(_options(fleet.name, here)) + "\n\n" + "\n".join(lines) + "\n" + _BODY


def _options(name: str, here: Slurm) -> list[str]:
    options = {
        "job-name": name,
        "nodes": here.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": here.cpus,
        "gpus-per-node": here.gpus or None,
        "mem": here.memory.removesuffix("i"),  # Slurm's units are powers of 1024
        "time": here.time,
        "partition": here.partition,
        "account": here.account,
        "qos": here.qos,
        "constraint": here.constraint,
        "signal": f"B:TERM@{here.drain_seconds}",
        "export": "NONE",  # the submitting shell's variables, which may be secret, stay there
        "open-mode": "append",
    }
    lines = [f"#SBATCH --{option}={value}" for option, value in options.items() if value is not None]
    # A lost node costs the work in flight on it, not the job.
    return [*lines, "#SBATCH --no-kill", "#SBATCH --requeue"]


def _path(path: str) -> str:
    """Return a path quoted for the shell; ``~`` is the user's home on the machine."""
    return '"$HOME"/' + shlex.quote(path[2:]) if path.startswith("~/") else shlex.quote(path)
