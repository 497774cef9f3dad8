#!/usr/bin/env bash
# Runs a command on every host of Cloud TPU slices, from request to deletion, through preemptions.
#
#   launch/tpu_vm.sh --project=PROJECT --zone=ZONE --name=NAME --type=v5litepod-256 \
#       --version=v2-alpha-tpuv5-lite [options] -- COMMAND...
#
#   --project --zone    where; there are no defaults
#   --name              of the queued resource. One that exists is gone on with: after this machine
#                       was away, the same line takes up the run that went on without it
#   --type --version    accelerator type and runtime version, as Google's TPU pages name them
#   --spot              cheaper, may be preempted
#   --slices=N          N slices joined by the data centre's network (1)
#   --ref=REF           the revision to run; default this checkout's tracked files, as they are
#   --setup=COMMAND     runs on every host first, such as mounting the file system of the workdir
#   --keep              leave the queued resource there at the end
#   --print             print what would run, run nothing
#
# Requests the slices as a queued resource, waits, installs, runs COMMAND in the checkout on all hosts
# and shows their output. Runs COMMAND again after 75, three times after a crash, and on new slices
# after a preemption; any other code is the exit code. Ends, Ctrl-C too, by deleting the queued
# resource. The workdir must be on a file system that all hosts see and that outlives them. TPU v7x
# and later are not in this API: use gke_jobset.yaml.
set -euo pipefail

say() { echo "launch/tpu_vm.sh: $*" >&2; }
fail() { say "${@:2}"; exit "$1"; }
project='' zone='' name='' type='' version='' spot='' slices=1 ref='' setup='' keep='' print=''
while (($#)); do
  case $1 in
    --project=* | --zone=* | --name=* | --type=* | --version=* | --slices=* | --ref=* | --setup=*)
      flag=${1%%=*}; printf -v "${flag#--}" %s "${1#*=}" ;;
    --spot | --keep | --print) printf -v "${1#--}" 1 ;;
    --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --) shift; break ;;
    *) fail 64 "unknown option '$1' (values follow =, the command goes behind --); see --help" ;;
  esac
  shift
done
for flag in project zone name type version; do
  [[ ${!flag} ]] || fail 64 "--$flag=... is missing; see --help"
done
[[ $slices =~ ^[1-9][0-9]*$ ]] || fail 64 "--slices needs a number above 0, not '$slices'"
(($#)) || fail 64 'the command behind -- is missing; see --help'
printf -v command '%q ' "$@"

# Runtime images bring Python 3.10; uv finds or fetches a newer one.
# A host that was started anew has its disk, but not what --setup did.
boot=/proc/sys/kernel/random/boot_id
installed="[ \"\$(cat ssl_jax/.installed)\" = \"\$(cat $boot)\" ]"
install="set -e
! $installed || exit 0
$setup
rm -rf ssl_jax && mkdir ssl_jax && tar -xzf ssl_jax.tar.gz -C ssl_jax && cd ssl_jax
python3 -m pip install --quiet --user uv
python3 -m uv venv --quiet --python '>=3.11' .venv
python3 -m uv pip install --quiet --python .venv/bin/python -r requirements.txt 'jax[tpu]'
cat $boot >.installed"

# The command outlives the connection; when it runs already, this only shows its output.
run="cd ssl_jax
start() { trap '' HUP; PATH=\$PWD/.venv/bin:\$PATH; $command; echo \$? >run.code; }
if ! kill -0 \$(cat run.pid 2>/dev/null) 2>/dev/null; then
  rm -f run.code; start >run.log 2>&1 </dev/null & echo \$! >run.pid
fi
tail -n +1 --pid=\$(cat run.pid) -s 0.2 -f run.log | sed -u \"s/^/[\$HOSTNAME] /\"
exit \$(cat run.code)"

show() {
  if [[ ! $print ]]; then "$@"; else printf '%q' "$1"; printf ' %q' "${@:2}"; echo; fi
}
tpu() { show gcloud compute tpus queued-resources "$@" --project="$project" --zone="$zone" --quiet; }
# All hosts at once: in groups, the first group would wait for the second.
everywhere() { tpu "$@" --node=all --worker=all --batch-size=all; }
create() {
  local nodes=(--node-id="$name")
  ((slices == 1)) || nodes=(--node-count="$slices" --node-prefix="$name")
  tpu create "$name" --accelerator-type="$type" --runtime-version="$version" "${nodes[@]}" ${spot:+--spot}
}
state() { tpu describe "$name" '--format=value(state.state)'; }
install() { everywhere scp "$archive" "$name:ssl_jax.tar.gz" && everywhere ssh "$name" --command="$install"; }
run() { everywhere ssh "$name" --command="$run"; }
codes() { everywhere ssh "$name" --command='cat ssl_jax/run.code'; }
delete() { tpu delete "$name" --force; }

cd "$(dirname "$0")/.."
# Packed once: after a preemption the same code goes on, whatever was edited meanwhile.
ref=${ref:-$(git stash create)}
archive=ssl_jax.tar.gz
[[ $print ]] || { folder=$(mktemp -d); archive=$folder/$archive; trap 'rm -rf "$folder"' EXIT; }
show git archive --format=tar.gz --output="$archive" "${ref:-HEAD}"
if [[ $print ]]; then
  create; state; install; run; codes; delete
  exit 0
fi

made='' crashes=0 missed=0 last='' running=''
trap 'rm -rf "$folder"; [[ ! $running ]] || kill -- -"$running"; [[ ! $made || $keep ]] || delete' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
again() {
  ((++missed <= 20)) || fail 1 "$name: 20 tries in a row ended within a minute"
  sleep 30
}
train() {
  local began=$SECONDS ended code restart='' crash=''
  everywhere ssh "$name" --command="$installed" 2>/dev/null || install || return 0
  # In the background, and in a group of its own: bash looks at a signal only once what runs in the
  # foreground has ended, which takes days.
  set -m
  run </dev/null & running=$!
  set +m
  wait "$running" || true
  running=''
  ((SECONDS - began < 60)) || missed=0
  ended=$(codes) || return 0
  for code in $ended; do
    case $code in
      0) ;;
      75) restart=1 ;;
      81 | 13[1-9] | 14?) crash=$code restart=1 ;;
      *) fail "$code" "the command ended with code $code" ;;
    esac
  done
  [[ $restart ]] || exit 0
  [[ ! $crash ]] || ((++crashes <= 3)) || fail "$crash" "crashed for the fourth time, with code $crash"
  say "ended with codes ${ended//$'\n'/ }; running the same command again"
}
while :; do
  state=$(state 2>/dev/null) || state=''
  [[ $state == "$last" ]] || say "$name: ${state:-not there}"
  last=$state
  case $state in
    '') if [[ $made ]]; then again; else create; made=1; fi ;;
    ACTIVE) made=1; train; again ;;
    FAILED) made=1; fail 1 "the request failed: $(tpu describe "$name" '--format=value(state)')" ;;
    SUSPENDED) made=1; say 'preempted; asking for new slices'; delete; made='' ;;
    # Whatever else it is called, it is on the way; these names have changed before.
    *) made=1; missed=0; sleep 30 ;;
  esac
done
