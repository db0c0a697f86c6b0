#!/usr/bin/env bash
# Trains with accelerate on several nodes; start it on each of them. Every further argument goes to training unchanged.
#
#   bash launch/accelerate_multinode.sh --machine_rank 0 --main_process_ip node0 --shards ... --output_dir /shared/runs/x ...
#
#   --machine_rank N          this node's number, from 0; node 0 is the main one
#   --main_process_ip HOST    the main node, the same on all
#   --main_process_port PORT  a free port there (default 29500)
#   --num_machines N          nodes (default: what the configuration file says)
#   --num_processes N         ranks of all nodes together (default: what the configuration file says)
#   --config_file FILE        accelerate's (default: launch/accelerate_zero2_multinode.yaml)
#   --max_restarts N          starts again after a failure, from the newest checkpoint (default 0); not after exit code 2
# shellcheck disable=SC2154,SC2034  # take_option assigns variables by name, and jobs.sh reads PATIENCE
set -euo pipefail
# shellcheck source=launch/jobs.sh
source "$(dirname "${BASH_SOURCE[0]}")/jobs.sh"
read_arguments "$@"
take_option machine_rank ""
take_option main_process_ip ""
take_option main_process_port 29500
take_option num_machines ""
take_option num_processes ""
take_option config_file "$REPO/launch/accelerate_zero2_multinode.yaml"
[[ $machine_rank =~ ^[0-9]+$ ]] || refuse "--machine_rank is ${machine_rank:-missing}: give every node its own number, from 0"
[ -n "$main_process_ip" ] || refuse "--main_process_ip is missing: give the same main node on every node, such as node0"
if [ "$machine_rank" = 0 ]; then require_port "$main_process_ip" "$main_process_port" main_process_ip main_process_port; fi
launcher=("$PYTHON" -m accelerate.commands.launch --config_file "$config_file" --machine_rank "$machine_rank")
launcher+=(--main_process_ip "$main_process_ip" --main_process_port "$main_process_port")
[ -z "$num_machines" ] || launcher+=(--num_machines "$num_machines")
[ -z "$num_processes" ] || launcher+=(--num_processes "$num_processes")
PATIENCE=30
run_job "${launcher[@]}" -m refiner_ds.train "${ARGUMENTS[@]}"
