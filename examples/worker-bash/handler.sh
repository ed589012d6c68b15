#!/usr/bin/env bash
# Greets: {"name":"Ada"} has the result {"greeting":"Hello, Ada"}. {"takeS":5} takes five seconds, {"failures":2} fails twice.
#
# Bash has no JSON. This reads the few members that it knows of; a handler that needs more is better written in another
# language, or uses jq.
read -r leased
number() { [[ $leased =~ \"$1\":([0-9]+) ]] && printf '%s' "${BASH_REMATCH[1]}" || printf 0; }

if (($(number takeS) > 0)); then
  exec {never}<> <(:)
  read -rt "$(number takeS)" -u "$never"
fi
attempt=$(number attempt)
if ((attempt <= $(number failures))); then
  echo "attempt $attempt failed, as the job asks for" >&2
  exit 75
fi
if [[ ! $leased =~ \"payload\":\{[^{}]*\"name\":\"([A-Za-z ]+)\" ]]; then
  echo 'the payload needs a "name" of letters' >&2
  exit 1
fi
printf '{"greeting":"Hello, %s"}' "${BASH_REMATCH[1]}"
