#!/usr/bin/env bash
# A worker for a queue of Sluice over HTTP: bash 4.4 or newer, curl 7.84 or newer, and mktemp and rm.
#
#     ./worker.sh http://127.0.0.1:8787 sums ./handler.sh
#
# It leases one job at a time and runs the handler on it. The handler gets the lease as JSON on its standard input (as the
# server sent it: {"leases":[{"lease":…,"id":…,"attempt":…,"payload":…}]}) and says by its end what becomes of the job:
#
#     exit 0     done; what it wrote to standard output, if anything, is the result and must be JSON
#     exit 75    tried again, after the back-off of the queue; standard error is the error
#     else       a dead letter; standard error is the error
#
# While it runs the lease is extended; where the lease is lost, the handler is told by SIGTERM. SIGINT (Ctrl-C) and SIGTERM
# stop the worker: it takes nothing new, finishes the job at hand and settles it. 503 is asked again when Retry-After says,
# a server that does not answer with growing pauses. SLUICE_KEY is the API key, where the server asks for one.
set -uo pipefail

if (($# < 3)); then
  echo "usage: $0 URL QUEUE HANDLER [ARGUMENT…]" >&2
  exit 2
fi
url=${1%/} queue=$2
shift 2
lease_ms=${LEASE_MS:-30000} wait_ms=${WAIT_MS:-20000}

stopping=0 asking=0 signalled=0
exec {never}<> <(:) # nothing is ever written here: reading it with a time-out is a sleep that a signal ends
stop() {
  stopping=1 signalled=1
  # A long poll is given up at once: the server takes back what it may have been about to give.
  ((asking != 0)) && [[ ! -s $scratch/leased ]] && kill "$asking" 2>/dev/null
}
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
trap stop INT TERM

pause() { read -rt "$1" -u "$never" || true; }
say() { printf '%s\n' "$*" >&2; }

# What curl asks, in ways that no other process sees: the key is not an argument.
curl_options() {
  printf 'header = "Content-Type: application/json"\n'
  [[ -n ${SLUICE_KEY:-} ]] && printf 'header = "Authorization: Bearer %s"\n' "$SLUICE_KEY"
  return 0
}

# post PATH BODY SECONDS: sets $status (000: no answer), $retry_after and $body.
post() {
  local answer
  answer=$(printf '%s' "$2" | curl -sS --max-time "$3" -K <(curl_options) --data-binary @- \
    -w '\n%{http_code} %header{retry-after}' "$url$1" 2>/dev/null)
  local last=${answer##*$'\n'}
  body=${answer%$'\n'*} status=${last%% *} retry_after=${last#* }
  [[ $status =~ ^[0-9]{3}$ ]] || status=000
  [[ $retry_after =~ ^[0-9]+$ ]] || retry_after=1
}

# The same for a long poll, which a signal ends: it runs beside the shell, which waits for it.
poll() {
  local out=$1 path=$2 data=$3
  (
    trap - INT TERM
    exec curl -sS --max-time "$((wait_ms / 1000 + 30))" -K <(curl_options) --data-binary "$data" \
      -w '\n%{http_code} %header{retry-after}' "$url$path" 2>/dev/null
  ) >"$out" &
  asking=$!
  ((stopping)) && kill "$asking" 2>/dev/null
  signalled=1
  while ((signalled)); do
    signalled=0
    wait "$asking"
  done
  asking=0
}

# Text as a JSON string. Control characters become spaces.
quote() {
  local text=${1:0:4000}
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//[[:cntrl:]]/ }
  printf '"%s"' "$text"
}

# Extends a lease until it is killed; tells the handler where the lease is lost.
keep() {
  local lease=$1 handler=$2
  while true; do
    pause "$((lease_ms / 3000)).$(printf '%03d' $((lease_ms / 3 % 1000)))"
    post /v1/leases:extend "{\"items\":[{\"lease\":\"$lease\",\"leaseMs\":$lease_ms}]}" 10
    if [[ $status == 200 && $body == *'"code":"LEASE_LOST"'* ]]; then
      say "the lease is lost"
      kill "$handler" 2>/dev/null
      return
    fi
  done
}

# settle ITEM: until the server has answered. The lease ends at some time, so it is not tried forever.
settle() {
  local tries=0
  while ((tries++ < 8)); do
    post /v1/leases:settle "{\"items\":[$1]}" 30
    case $status in
      200)
        [[ $body == *'"outcome":"settled"'* ]] || say "not settled: $body"
        return 0
        ;;
      503) pause "$retry_after" ;;
      000 | 5*) pause "$tries" ;;
      *)
        say "refused: $body"
        return 1
        ;;
    esac
  done
  say "the settle was never answered; the job comes back when its lease ends"
}

work() {
  local leased=$1 lease handler keeper code
  shift
  # The lease stands first, and is letters, digits, dashes and underscores.
  [[ $leased =~ \"lease\":\"([A-Za-z0-9_-]+)\" ]] || return
  lease=${BASH_REMATCH[1]}
  say 'took a job'
  "$@" <<<"$leased" >"$scratch/result" 2>"$scratch/error" &
  handler=$!
  keep "$lease" "$handler" &
  keeper=$!
  # A signal ends a wait, and the handler goes on.
  signalled=1
  while ((signalled)); do
    signalled=0
    wait "$handler"
    code=$?
  done
  kill "$keeper" 2>/dev/null
  wait "$keeper" 2>/dev/null
  local result error
  result=$(<"$scratch/result") error=$(<"$scratch/error")
  case $code in
    0)
      settle "{\"lease\":\"$lease\",\"outcome\":\"done\"${result:+,\"result\":$result}}" ||
        settle "{\"lease\":\"$lease\",\"outcome\":\"dead\",\"error\":\"The handler wrote what is not JSON.\"}"
      ;;
    75) settle "{\"lease\":\"$lease\",\"outcome\":\"retry\",\"error\":$(quote "$error")}" ;;
    *) settle "{\"lease\":\"$lease\",\"outcome\":\"dead\",\"error\":$(quote "exit $code: $error")}" ;;
  esac
}

say "working on $queue at $url; Ctrl-C stops"
pause_s=1
while ((!stopping)); do
  poll "$scratch/leased" "/v1/queues/$queue/leases" "{\"max\":1,\"leaseMs\":$lease_ms,\"waitMs\":$wait_ms}"
  answer=$(<"$scratch/leased")
  last=${answer##*$'\n'} leased=${answer%$'\n'*}
  status=${last%% *} retry_after=${last#* }
  case $status in
    200)
      pause_s=1
      [[ $leased == *'"leases":[]'* ]] || work "$leased" "$@"
      ;;
    503)
      [[ $retry_after =~ ^[0-9]+$ ]] || retry_after=1
      # A little later, and not with everybody else.
      ((stopping)) || pause "$retry_after.$((RANDOM % 10))"
      ;;
    4*)
      say "refused: $leased"
      exit 1
      ;;
    *)
      ((stopping)) && break
      say "$url does not answer"
      pause "$pause_s.$((RANDOM % 10))"
      ((pause_s = pause_s < 8 ? pause_s * 2 : 8))
      ;;
  esac
done
say "stopped"
