#!/usr/bin/env bash
# Runs a command as several processes of one training on this machine.
#
#   launch/local.sh -n PROCESSES [-d DEVICES] [-g GRACE] [--print] -- COMMAND...
#
#   -n PROCESSES  how many; the machine's GPUs are divided evenly among them
#   -d DEVICES    virtual CPU devices of each process, instead of GPUs
#   -g GRACE      seconds between the first failure and the end of the others (60)
#   --print       print what would run, run nothing
#
# Lines are prefixed with the process number. SIGTERM and SIGINT go on to every process. The exit
# code is the first one that is not 0; 75 ("stopped, run me again") gives way to any other, since it
# holds only when every process says so. Restarts: python -m ssl_jax.supervise -- launch/local.sh ...
set -euo pipefail

fail() { echo "launch/local.sh: $*; see --help" >&2; exit 64; }
number() { [[ ${2-} =~ ^[1-9][0-9]*$ ]] || fail "$1 needs a number above 0, not '${2-}'"; }

processes='' devices='' grace=60 print=''
while (($#)); do
  case $1 in
    -n) number "$@"; processes=$2; shift 2 ;;
    -d) number "$@"; devices=$2; shift 2 ;;
    -g) number "$@"; grace=$2; shift 2 ;;
    --print) print=1; shift ;;
    --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --) shift; break ;;
    *) fail "unknown option '$1' (the command goes behind --)" ;;
  esac
done
[[ $processes ]] || fail '-n PROCESSES is missing'
(($#)) || fail 'the command behind -- is missing'

gpus=()
if [[ ! $devices && ${JAX_PLATFORMS-} != cpu ]]; then
  if [[ ${CUDA_VISIBLE_DEVICES-} ]]; then
    IFS=, read -ra gpus <<<"$CUDA_VISIBLE_DEVICES"
  elif command -v nvidia-smi >/dev/null; then
    mapfile -t gpus < <(nvidia-smi --query-gpu=index --format=csv,noheader)
  fi
  ((${#gpus[@]} % processes == 0)) ||
    fail "${#gpus[@]} GPUs cannot be divided among $processes processes: change -n"
fi
share=$((${#gpus[@]} / processes))
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

# Fills `line` with the environment and the command of one process.
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

# Job control gives every process a group of its own: Ctrl-C reaches it once, through us, and what it
# leaves behind can be ended with it.
set -m
pipes=$(mktemp -d)
pids=() readers=()
# shellcheck disable=SC2317  # traps call it
pass() { for pid in "${pids[@]}"; do kill -s "$1" -- "$2$pid" 2>/dev/null || true; done; }
trap 'pass KILL -; rm -rf "$pipes"' EXIT
trap '' USR1 # of a supervisor: asks the workers for their stacks, and would end us and the readers
asked=''
trap 'asked=TERM' TERM # until all are there to be told
trap 'asked=INT' INT

for ((i = 0; i < processes; i++)); do
  compose "$i"
  mkfifo "$pipes/$i"
  sed -u "s/^/[$i] /" <"$pipes/$i" & readers+=($!)
  "${line[@]}" >"$pipes/$i" 2>&1 </dev/null & pids+=($!)
done
sleep 0.2 # a child that is still this script, about to become its command, would swallow a signal
trap 'pass TERM ""' TERM
trap 'pass INT ""' INT
[[ ! $asked ]] || pass "$asked" ""

# Of those that end in one moment, a code of the program's own tells more than death by a signal.
telling() { echo $(($1 == 0 ? 0 : $1 == 75 ? 1 : $1 > 128 ? 2 : 3)); }
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
    (($(telling "$own") <= $(telling "$worst"))) || worst=$own
    deadline=${deadline:-$((SECONDS + grace + 1))} # whole seconds, so up to one more
  done
  ((code != 0 && code != 75 || worst == 0)) || code=$worst
  if [[ $deadline ]] && ((SECONDS >= deadline && ${#pids[@]})); then
    echo "launch/local.sh: ending the others, $grace s after the first failure" >&2
    pass KILL -
  fi
  # A builtin that waits: while a program did, the terminal's Ctrl-C would go to that program alone.
  read -rt 0.2 -u "$never" || true
done
wait "${readers[@]}"
exit "$code"
