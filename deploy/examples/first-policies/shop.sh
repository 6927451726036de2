# A small shop for docs/policy.md. Source it in bash in an empty directory; everything stays there and on loopback.
#
#   shop_up                           a control plane; orders and billing with their sidecars; web, report and probe, who only call
#   call WHO [curl ...] URL           what the app of WHO would call: through its own sidecar
#   issuer jwks | SUBJECT [ROLE]...   what an issuer of tokens does
#   shop_down                         ends all of it; so does leaving the shell

FIRST_POLICIES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

SHOP_PIDS=()

# in_background LOG COMMAND...: without a word from the shell when it begins or ends
in_background() {
  local log=$1
  shift
  { "$@" >"$log" 2>&1 & } 2>/dev/null
  SHOP_PIDS+=($!)
  disown $!
}

# until_so COMMAND...: waits half a minute at most
until_so() {
  local end=$((SECONDS + 30))
  while [ $SECONDS -lt $end ]; do
    "$@" >/dev/null 2>&1 && return
    sleep 0.2
  done
  echo "the shop did not come up (is a port taken?); the logs in $PWD say why" >&2
  return 1
}

all_connected() { [ "$(hauberk status | grep -c ' connected ')" = 5 ]; }
reaches() { [ "$(call "$1" --output /dev/null "$2")" = ' -> 403' ]; }

# sidecar_of NAMESPACE NAME MORE: a join token and a configuration, in which only MORE differs
sidecar_of() {
  hauberk token create --service "$2" --namespace "$1" --out "$2.token" 2>/dev/null
  cat >"$2.yaml" <<CONFIG
service: $2
namespace: $1
control_plane: 127.0.0.1:15012
join_token_file: $2.token
mesh_listen: 127.0.0.1:0
health: off
$3
CONFIG
}

# service NAMESPACE NAME APP-PORT ADMIN-PORT MORE
service() {
  sidecar_of "$1" "$2" "admin: 127.0.0.1:$4
outbound: {listen: off}
inbound: [{port: 8080, app: 127.0.0.1:$3, protocol: http1$5}]"
  in_background "$2.log" hauberk run --config "$2.yaml" -- python3 "$FIRST_POLICIES/echo.py" "$2" "$3"
}

# caller NAMESPACE NAME PROXY-PORT
caller() {
  sidecar_of "$1" "$2" "admin: 127.0.0.1:0
outbound: {listen: 127.0.0.1:$3}"
  in_background "$2.log" hauberk sidecar --config "$2.yaml"
}

shop_up() {
  export HAUBERK_DATA_DIR="$PWD/mesh"
  trap shop_down EXIT
  in_background control-plane.log hauberk control-plane --listen 127.0.0.1:15012 --join-listen 127.0.0.1:15011
  until_so hauberk status || return
  service shop orders 8081 9001 ", plaintext: 127.0.0.1:8088"
  service shop billing 8082 9002 ""
  caller shop web 9101
  caller shop report 9102
  caller ops probe 9103
  until_so all_connected || return
  for name in web report probe; do
    until_so reaches $name orders.shop/ && until_so reaches $name billing.shop/ || return
  done
  hauberk status | grep -o 'spiffe://[^ ]*'
}

call() {
  case "$1" in web) port=9101 ;; report) port=9102 ;; probe) port=9103 ;; *) echo "nobody is called $1" >&2; return 2 ;; esac
  shift
  curl --silent --proxy "http://127.0.0.1:$port" --write-out ' -> %{http_code}' "$@" | tr -d '\n'
  echo
}

issuer() { python3 "$FIRST_POLICIES/issuer.py" "$@"; }

# Callers first, the control plane last.
shop_down() {
  local at
  for ((at = ${#SHOP_PIDS[@]} - 1; at >= 0; at--)); do
    kill "${SHOP_PIDS[at]}" 2>/dev/null || true
    while kill -0 "${SHOP_PIDS[at]}" 2>/dev/null; do sleep 0.1; done
  done
  SHOP_PIDS=()
  trap - EXIT
}
