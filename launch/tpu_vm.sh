#!/usr/bin/env bash
# Requests Cloud TPU slices, runs a command on all their hosts until it is done, and deletes them.
#
#   launch/tpu_vm.sh --project=PROJECT --zone=ZONE --name=NAME --type=v5litepod-256 \
#       --version=v2-alpha-tpuv5-lite [options] -- COMMAND...
#
#   --project --zone    Google Cloud project and zone; both are required
#   --name              name of the queued resource. An existing one is reused: if this machine lost
#                       its connection, the same command reattaches to the run
#   --type --version    accelerator type and runtime version, as named in Google's TPU documentation
#   --spot              use Spot capacity: cheaper, may be preempted
#   --slices=N          number of slices, connected by the data centre network (1)
#   --ref=REF           git revision to run; default: tracked files with uncommitted changes
#   --setup=COMMAND     runs first on every host, e.g. to mount the file system of the workdir
#   --keep              do not delete the queued resource at the end
#   --print             print the commands and run nothing
#
# Requests the slices as a queued resource, waits for them, installs this checkout, runs COMMAND in
# it on all hosts and shows their output. Reruns COMMAND after exit code 75, up to three times after
# crashes, and on new slices after a preemption. Passes any other exit code on. Deletes the queued
# resource at the end, also after Ctrl-C. The workdir must be on a file system that all hosts mount
# and that outlives them. This API does not support TPU v7x and later: use gke_jobset.yaml.
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
    *) fail 64 "unknown option '$1' (use --NAME=VALUE; put the command after --); see --help" ;;
  esac
  shift
done
for flag in project zone name type version; do
  [[ ${!flag} ]] || fail 64 "--$flag=... is missing; see --help"
done
[[ $slices =~ ^[1-9][0-9]*$ ]] || fail 64 "--slices must be an integer above 0, not '$slices'"
(($#)) || fail 64 'the command after -- is missing; see --help'
printf -v command '%q ' "$@"

# Installs once per boot: a rebooted host keeps its disk, but for example not the mounts of --setup.
# Runtime images have Python 3.10; uv finds or downloads a newer version.
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

# The command survives a broken connection. If it already runs, this only shows its output.
run="cd ssl_jax
start() { trap '' HUP; PATH=\$PWD/.venv/bin:\$PATH; $command; echo \$? >run.code; }
if ! kill -0 \$(cat run.pid 2>/dev/null) 2>/dev/null; then
  rm -f run.code; : >run.log # tail needs it before the command writes to it
  start >run.log 2>&1 </dev/null & echo \$! >run.pid
fi
tail -n +1 --pid=\$(cat run.pid) -s 0.2 -f run.log | sed -u \"s/^/[\$HOSTNAME] /\"
exit \$(cat run.code)"

show() {
  if [[ ! $print ]]; then "$@"; else printf '%q' "$1"; printf ' %q' "${@:2}"; echo; fi
}
tpu() { show gcloud compute tpus queued-resources "$@" --project="$project" --zone="$zone" --quiet; }
# On all hosts at once: in batches, the first batch would wait forever for the second.
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
# Packed once, so that edits in the meantime do not change the code after a preemption.
ref=${ref:-$(git stash create)}
archive=ssl_jax.tar.gz
[[ $print ]] || { folder=$(mktemp -d); archive=$folder/$archive; trap 'rm -rf "$folder"' EXIT; }
show git archive --format=tar.gz --output="$archive" "${ref:-HEAD}"
if [[ $print ]]; then
  create; state; install; run; codes; delete
  exit 0
fi

created='' crashes=0 quick_exits=0 last='' running=''
trap 'rm -rf "$folder"; [[ ! $running ]] || kill -- -"$running"; [[ ! $created || $keep ]] || delete' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
retry_later() {
  ((++quick_exits <= 20)) || fail 1 "$name: 20 attempts in a row ended within a minute"
  sleep 30
}
train() {
  local began=$SECONDS exit_codes code restart='' crash=''
  everywhere ssh "$name" --command="$installed" 2>/dev/null || install || return 0
  # In the background and in its own process group: bash handles a signal only after its foreground
  # command ends, which can take days.
  set -m
  run </dev/null & running=$!
  set +m
  wait "$running" || true
  running=''
  ((SECONDS - began < 60)) || quick_exits=0
  exit_codes=$(codes) || return 0
  for code in $exit_codes; do
    case $code in
      0) ;;
      75) restart=1 ;;
      81 | 13[1-9] | 14?) crash=$code restart=1 ;;
      *) fail "$code" "the command exited with code $code" ;;
    esac
  done
  [[ $restart ]] || exit 0
  [[ ! $crash ]] || ((++crashes <= 3)) || fail "$crash" "crashed for the fourth time, with code $crash"
  say "exited with codes ${exit_codes//$'\n'/ }; running the same command again"
}
while :; do
  state=$(state 2>/dev/null) || state=''
  [[ $state == "$last" ]] || say "$name: ${state:-does not exist}"
  last=$state
  case $state in
    '') if [[ $created ]]; then retry_later; else create; created=1; fi ;;
    ACTIVE) created=1; train; retry_later ;;
    FAILED) created=1; fail 1 "the request failed: $(tpu describe "$name" '--format=value(state)')" ;;
    SUSPENDED) created=1; say 'preempted; requesting new slices'; delete; created='' ;;
    # Any other state means that the request is in progress. Google has renamed these states before.
    *) created=1; quick_exits=0; sleep 30 ;;
  esac
done
