#!/usr/bin/env bash
# Runs a command as one training job of several processes on this machine.
#
#   launch/local.sh -n PROCESSES [-d DEVICES] [-g GRACE] [--print] -- COMMAND...
#
#   -n PROCESSES  number of processes; the machine's GPUs are split evenly among them
#   -d DEVICES    number of virtual CPU devices per process, instead of GPUs
#   -g GRACE      seconds that the other processes get after the first failure (60)
#   --print       print the commands and run nothing
#
# Every output line is prefixed with its process number. SIGTERM and SIGINT are forwarded to every
# process. The exit code is the first one that is not 0. Code 75 (stopped early, state saved) is the
# exception: it is returned only if no process exits with another nonzero code. For restarts, run
# python -m ssl_jax.supervise -- launch/local.sh ...
set -euo pipefail

fail() { echo "launch/local.sh: $*; see --help" >&2; exit 64; }
number() { [[ ${2-} =~ ^[1-9][0-9]*$ ]] || fail "$1 must be an integer above 0, not '${2-}'"; }

processes='' devices='' grace=60 print=''
while (($#)); do
  case $1 in
    -n) number "$@"; processes=$2; shift 2 ;;
    -d) number "$@"; devices=$2; shift 2 ;;
    -g) number "$@"; grace=$2; shift 2 ;;
    --print) print=1; shift ;;
    --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --) shift; break ;;
    *) fail "unknown option '$1' (put the command after --)" ;;
  esac
done
[[ $processes ]] || fail '-n PROCESSES is missing'
(($#)) || fail 'the command after -- is missing'

gpus=()
if [[ ! $devices && ${JAX_PLATFORMS-} != cpu ]]; then
  if [[ ${CUDA_VISIBLE_DEVICES-} ]]; then
    IFS=, read -ra gpus <<<"$CUDA_VISIBLE_DEVICES"
  elif command -v nvidia-smi >/dev/null; then
    mapfile -t gpus < <(nvidia-smi --query-gpu=index --format=csv,noheader)
  fi
  ((${#gpus[@]} % processes == 0)) ||
    fail "${#gpus[@]} GPUs cannot be split evenly among $processes processes: change -n"
fi
share=$((${#gpus[@]} / processes))
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

# Sets `line` to the environment and the command of one process.
compose() {
  local process=$1 own
  line=(env SSL_JAX_COORDINATOR="127.0.0.1:$port" SSL_JAX_PROCESSES="$processes" SSL_JAX_PROCESS="$process")
  [[ ! $devices ]] || line+=(JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES="$devices")
  if ((share)); then
    own=$(IFS=,; echo "${gpus[*]:process * share:share}")
    line+=(CUDA_VISIBLE_DEVICES="$own")
  fi
  line+=("${command[@]}")
}

command=("$@")
if [[ $print ]]; then
  for ((i = 0; i < processes; i++)); do
    compose "$i"
    printf '%q' "${line[0]}"; printf ' %q' "${line[@]:1}"; echo
  done
  exit 0
fi

# Job control gives every process its own process group. Ctrl-C then reaches it only once, through
# this script, and the script can kill the children that a process leaves behind.
set -m
pipes=$(mktemp -d)
pids=() readers=()
# shellcheck disable=SC2317  # traps call it
signal_all() { for pid in "${pids[@]}"; do kill -s "$1" -- "$2$pid" 2>/dev/null || true; done; }
trap 'signal_all KILL -; rm -rf "$pipes"' EXIT
trap '' USR1 # a supervisor's request for stacks: would kill this script and its output readers
pending=''
trap 'pending=TERM' TERM # kept until all processes have started
trap 'pending=INT' INT

for ((i = 0; i < processes; i++)); do
  compose "$i"
  mkfifo "$pipes/$i"
  sed -u "s/^/[$i] /" <"$pipes/$i" & readers+=($!)
  "${line[@]}" >"$pipes/$i" 2>&1 </dev/null & pids+=($!)
done
sleep 0.2 # before a child executes its command, it is a copy of this script and loses signals
trap 'signal_all TERM ""' TERM
trap 'signal_all INT ""' INT
[[ ! $pending ]] || signal_all "$pending" ""

# Compares processes that exit at the same time: a code of the program says more about the cause
# than death by a signal.
severity() { echo $(($1 == 0 ? 0 : $1 == 75 ? 1 : $1 > 128 ? 2 : 3)); }
mkfifo "$pipes/never"
exec {never}<>"$pipes/never"
code=0 deadline=''
while ((${#pids[@]})); do
  worst=0
  for i in "${!pids[@]}"; do
    kill -0 "${pids[i]}" 2>/dev/null && continue
    own=0
    wait "${pids[i]}" || own=$?
    kill -s KILL -- "-${pids[i]}" 2>/dev/null || true
    unset "pids[i]"
    ((own)) || continue
    echo "launch/local.sh: process $i ended with code $own" >&2
    (($(severity "$own") <= $(severity "$worst"))) || worst=$own
    deadline=${deadline:-$((SECONDS + grace + 1))} # 1 more: SECONDS is rounded down
  done
  ((code != 0 && code != 75 || worst == 0)) || code=$worst
  if [[ $deadline ]] && ((SECONDS >= deadline && ${#pids[@]})); then
    echo "launch/local.sh: killing the other processes $grace s after the first failure" >&2
    signal_all KILL -
  fi
  # Waits with a builtin: with a program like sleep, Ctrl-C would interrupt only that program.
  read -rt 0.2 -u "$never" || true
done
wait "${readers[@]}"
exit "$code"
