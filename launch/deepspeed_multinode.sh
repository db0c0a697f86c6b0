#!/usr/bin/env bash
# Trains on every node of a hostfile with the deepspeed launcher; every further argument goes to training unchanged.
#
#   bash launch/deepspeed_multinode.sh --hostfile hostfile --shards ... --output_dir /shared/runs/x ...
#
# Start it once, on any machine from which pdsh and ssh without a password reach all nodes by the names in the hostfile.
# Without ssh between the nodes, start it on each of them with its number: add --node_rank 0 --master_addr node0.
#
#   --hostfile FILE     a line `node0 slots=8` for each node (default: hostfile), see hostfile.example
#   --master_addr HOST  where all meet (default: the first node's first address)
#   --master_port PORT  a free port there (default 29500)
#   --node_rank N       start the ranks of this node alone; its place in the hostfile, counted from 0
#   --max_restarts N    starts again after a failure, from the newest checkpoint (default 0); not after exit code 2
# shellcheck disable=SC2154,SC2034  # take_option assigns variables by name, and jobs.sh reads PATIENCE
set -euo pipefail
# shellcheck source=launch/jobs.sh
source "$(dirname "${BASH_SOURCE[0]}")/jobs.sh"
SECRET='(PASSWORD|TOKEN|SECRET|ACCESS_KEY|API_KEY)' # as for `refiner-ds doctor`
PASSWORD_IN_URI='://[^/@]*:[^/@]*@'

# Refuses nodes that ssh does not reach, all of them asked at once, in ssh's own words.
require_hosts() {
    local answers host words remedy=''
    answers=$(mktemp -d)
    for host in "${hosts[@]}"; do
        { ssh -n -o BatchMode=yes -o ConnectTimeout=5 "$host" true >/dev/null 2>"$answers/$host" && rm "$answers/$host"; } &
    done
    wait
    for host in "${hosts[@]}"; do
        [ -e "$answers/$host" ] || continue
        words=$(tr -d '\r' <"$answers/$host" | grep . | tail -n 1 || true)
        case $words in
        *"Host key verification failed"*) remedy="compare its key and make it known by \`ssh-keyscan $host >> ~/.ssh/known_hosts\`" ;;
        *"Permission denied"*) remedy="let it in without a password by \`ssh-copy-id $host\`" ;;
        *) remedy="mend its name or its network, or take its line out of $hostfile" ;;
        esac
        rm -r "$answers"
        refuse "$host of $hostfile cannot be reached by ssh (${words:-no answer}), so nothing was started: $remedy"
    done
    rm -r "$answers"
}

# Prints the variables that deepspeed itself would carry to the nodes, as NAME=VALUE: from its files, and by their names.
carried_variables() {
    local own
    for own in "${own_variables[@]}"; do
        [ ! -f "$own" ] || grep -E '^[A-Za-z_][A-Za-z0-9_]*=' "$own" || true
    done
    env | grep -E '^(MLFLOW|PYTHON|MV2|UCX|NCCL)[A-Za-z0-9_]*=' || true
}

# Keeps secrets from pdsh's command lines, where everybody on a node can read them, and says which.
hide_secrets() {
    local addresses names name
    addresses=$(option keep tracking_uri "" && carried_variables | grep '^MLFLOW_TRACKING_URI=' || true)
    if [[ $addresses =~ $PASSWORD_IN_URI ]]; then
        refuse "--tracking_uri or MLFLOW_TRACKING_URI has a password in it, which pdsh would show on the command lines of every node: take it out, and keep it in ~/.mlflow/credentials"
    fi
    names=$(carried_variables | cut -d= -f1 | grep -iE "$SECRET" | sort -u || true)
    [ -n "$names" ] || return 0
    echo "${names//$'\n'/, }: not carried to the nodes, as pdsh would show secrets on the command lines of all; keep them in files there that only you can read, MLflow's in ~/.mlflow/credentials" >&2
    for name in $names; do unset "$name"; done
}

# Writes what must travel to the nodes, in a file for this user's eyes; deepspeed cannot read one with empty lines.
prepare_attempt() {
    local name own
    (
        umask 077
        for own in "${own_variables[@]}"; do # what deepspeed would have read itself; a PATH there is of another program's making
            [ ! -f "$own" ] || grep -E '^[A-Za-z_][A-Za-z0-9_]*=' "$own" | grep -viE "^([^=]*${SECRET}[^=]*|PATH)=" || true
        done >"$DS_ENV_FILE"
        for name in GLOO_SOCKET_IFNAME OMP_NUM_THREADS DS_ACCELERATOR HF_HOME HF_HUB_OFFLINE REFINER_DS_LAUNCHER "${!NCCL_@}"; do
            [ -z "${!name:-}" ] || printf '%s=%s\n' "$name" "${!name//$'\n'/ }"
        done >>"$DS_ENV_FILE"
    )
}

# Writes an argument so that pdsh, deepspeed's own quoting and the shell of the node give it back as it was.
for_the_node() {
    local text=${1//%/%%}
    if [[ $text == *" "* ]]; then # deepspeed puts double quotes around it and a backslash before those in it
        text=${text//\\/\\\\}
        text=${text//\$/\\\$}
        printf '%s' "${text//\`/\\\`}"
    else
        printf '%q' "$text"
    fi
}

read_arguments "$@"
take_option hostfile hostfile
take_option master_addr ""
take_option master_port 29500
take_option node_rank ""
[ -f "$hostfile" ] || refuse "--hostfile $hostfile does not exist: write one with a line like \`node0 slots=8\` for each node, see launch/hostfile.example"
mapfile -t hosts < <(awk 'NF && $1 !~ /^#/ {print $1}' "$hostfile")
[ "${#hosts[@]}" -gt 0 ] || refuse "--hostfile $hostfile names no node: write a line like \`node0 slots=8\` for each"
launcher=("$PYTHON" -m deepspeed.launcher.runner --hostfile "$hostfile" --master_port "$master_port")
[ -z "$master_addr" ] || launcher+=(--master_addr "$master_addr")
PATIENCE=30
if [ -n "$node_rank" ]; then
    [ -n "$master_addr" ] || refuse "--node_rank $node_rank needs --master_addr HOST, the node where all meet: give the same one on every node"
    if [ "$node_rank" = 0 ]; then require_port "$master_addr" "$master_port"; fi
    unset -f prepare_attempt # nothing travels: each node has its own environment
    run_job "${launcher[@]}" --no_ssh --node_rank "$node_rank" --module refiner_ds.train "${ARGUMENTS[@]}"
fi
command -v pdsh >/dev/null || refuse "pdsh is not installed here, so no node can be started: install it (Debian: apt install pdsh), or use launch/torchrun.sh"
own_variables=("$HOME/${DS_ENV_FILE:-.deepspeed_env}" "${DS_ENV_FILE:-.deepspeed_env}")
hide_secrets
require_port "${master_addr:-${hosts[0]#*@}}" "$master_port"
require_hosts
# a host that has gone silent is noticed within 15 seconds, and no question is ever asked
PDSH_SSH_ARGS_APPEND="${PDSH_SSH_ARGS_APPEND:-} -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=5 -o ServerAliveCountMax=3"
export PDSH_SSH_ARGS_APPEND
private=$(mktemp -d)
export DS_ENV_FILE=$private/environment
AT_EXIT=$private
arguments=()
for argument in "${ARGUMENTS[@]}"; do arguments+=("$(for_the_node "$argument")"); done
# a single node too is started by pdsh, so that quoting is the same
run_job "${launcher[@]}" --force_multi --module refiner_ds.train "${arguments[@]}"
