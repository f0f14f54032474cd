# shellcheck shell=bash disable=SC2034
# What the scripts of this folder share; sourced, not run.
# Every process is started here and ended by its own id; a run's files are in one folder.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../../.." && pwd)
cache="${CTFLOW_E2E_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ctflow-e2e}"
state="$cache/run"
PATH="$PATH:/usr/sbin:/sbin"

# Fixed, so that kubeconfigs and manifests can name them. The bridge is in this machine only.
api_port=6443
host_ip=10.88.0.1        # the bridge's own address: how a pod reaches the host's loopback
pod_cidr=10.88.0.0/24
service_cidr=10.0.0.0/24
api_ip=10.0.0.1          # the first of service_cidr: Kubernetes gives it to its own API
bridge=ctflow0

say() { echo "servers: $*" >&2; }
die() { say "$*"; exit 5; }

# start NAME COMMAND...: in a session of its own, so that `stop` reaches what it started.
start() {
  local name=$1
  shift
  mkdir -p "$state/log" "$state/pid"
  if running "$name"; then return 0; fi
  setsid "$@" >"$state/log/$name.log" 2>&1 </dev/null &
  echo $! >"$state/pid/$name"
  # Linux shares the processor out by session: beside a busy test run an API server answers too late.
  echo -10 2>/dev/null >"/proc/$!/autogroup" || true
}

running() {
  local pid
  pid=$(cat "$state/pid/$1" 2>/dev/null) && [ -d "/proc/$pid" ] && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null
}

# stop NAME [SECONDS]: TERM to its whole group, KILL after SECONDS.
stop() {
  local name=$1 seconds=${2:-10} pid tries
  pid=$(cat "$state/pid/$name" 2>/dev/null) || return 0
  kill -TERM -- "-$pid" 2>/dev/null || true
  for ((tries = 0; tries < seconds * 20; tries++)); do
    running "$name" || break
    sleep 0.05
  done
  kill -KILL -- "-$pid" 2>/dev/null || true
  rm -f "$state/pid/$name"
}

# wait_for NAME SECONDS COMMAND...: until COMMAND succeeds; fails with the log's end when NAME has died.
wait_for() {
  local name=$1 seconds=$2 end
  shift 2
  end=$((SECONDS + seconds))
  while ((SECONDS < end)); do
    # Both, since something else may answer on its port.
    "$@" >/dev/null 2>&1 && running "$name" && return 0
    if ! running "$name"; then
      tail -n 20 "$state/log/$name.log" >&2
      die "$name has ended; its log is $state/log/$name.log"
    fi
    sleep 0.1
  done
  tail -n 20 "$state/log/$name.log" >&2
  die "$name was not ready in $seconds s; its log is $state/log/$name.log"
}

# install PROGRAM=PACKAGE...: Debian packages of the programs that are missing.
install() {
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null 2>&1 || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  [ "$(id -u)" -eq 0 ] || die "install ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

built() { "$here/build" "$1"; }
# The Python with ML Metadata, made once for what requirements.txt says.
metadata() { "$here/mlmd" python; }

# program NAME MODULE: from KUBEBUILDER_ASSETS where that has it, else built.
program() {
  if [ -x "${KUBEBUILDER_ASSETS:-}/$1" ]; then echo "$KUBEBUILDER_ASSETS/$1"; else echo "$(built "$2")/$1"; fi
}

kubectl() { "$(program kubectl kubernetes)" --kubeconfig "$state/admin.kubeconfig" "$@"; }
# On the server's side, since CRDs are larger than what the client's side can note down; again when a
# busy machine let it time out.
apply() {
  local given words tries
  given=$([[ " $* " != *" - "* ]] || cat)
  for tries in 1 2 3 4 5; do
    words=$(kubectl apply --server-side --force-conflicts "$@" <<<"$given" 2>&1 >/dev/null) && return 0
    case $words in *Timeout* | *timeout* | *refused*) sleep 1 ;; *) break ;; esac
  done
  say "$words"
  return 1
}
