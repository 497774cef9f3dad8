#!/usr/bin/env bash
# Fills in one of the YAML files in this folder and submits it.
#
#   launch/render.sh [--print] FILE NAME=VALUE... -- COMMAND...
#
#   launch/render.sh gke_jobset.yaml NAME=run1 ... -- python -m ssl_jax.train ...    kubectl create
#   launch/render.sh skypilot.yaml NAME=run1 ... -- python -m ssl_jax.train ...      sky jobs launch
#
#   --print   print the YAML, with the command that would submit it as a comment; run nothing
#
# The first comment of each file explains its values. All values are required.
set -euo pipefail

fail() { echo "launch/render.sh: $*" >&2; exit 64; }
print=''
case ${1-} in
  --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 0 ;;
  --print) print=1; shift ;;
esac
file=${1-}
[[ $file ]] || fail 'the FILE is missing; see --help'
[[ -e $file ]] || file=$(dirname "$0")/$file
[[ -e $file ]] || fail "there is no file '$1', neither in this folder nor next to render.sh"
shift

# Removes the comments: they explain the values to the person who fills them in.
text=$(grep -v '^ *#' "$file")
while (($#)) && [[ $1 != -- ]]; do
  [[ $1 =~ ^[A-Z_]+=[A-Za-z0-9._:/@+-]+$ ]] ||
    fail "'$1' is not NAME=VALUE with letters, digits and ._:/@+- (put the command after --)"
  name=${1%%=*}
  [[ $name != COMMAND && $text == *"\${$name}"* ]] || fail "$(basename "$file") has no value '$name'"
  text=${text//"\${$name}"/"${1#*=}"}
  shift
done
(($# > 1)) || fail 'the command after -- is missing'
shift
# %q keeps the command on one line: bash writes a newline as $'\n'.
printf -v command '%q ' "$@"
# shellcheck disable=SC2016  # a variable of the file, not of bash
missing=$(grep -o '\${[A-Z_]*}' <<<"${text//'${COMMAND}'/}" | sort -u | tr -d '${}' | tr '\n' ' ') || true
[[ ! $missing ]] || fail "$(basename "$file") needs ${missing% }: add NAME=VALUE for each; see its first comment"
# shellcheck disable=SC2016
text=${text//'${COMMAND}'/"${command% }"}

case $(basename "$file") in
  skypilot*) line=(sky jobs launch --yes --detach-run) ;;
  *) line=(kubectl create -f) ;;
esac
if [[ $print ]]; then
  echo "# ${line[*]} THIS_FILE"
  printf '%s\n' "$text"
  exit 0
fi
rendered=$(mktemp --suffix=.yaml)
trap 'rm -f "$rendered"' EXIT
printf '%s\n' "$text" >"$rendered"
"${line[@]}" "$rendered"
