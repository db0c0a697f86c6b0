#!/usr/bin/env bash
# Trains with torchrun, on one node or on several; every further argument goes to training unchanged.
#
#   bash launch/torchrun.sh [--nproc_per_node 8] --shards ... --output_dir runs/x ...
#   bash launch/torchrun.sh --nnodes 8 --node_rank 0 --nproc_per_node 8 --master_addr node0 --shards ... --output_dir /shared/runs/x ...
#
# On several nodes start it on each of them with its number; the folders are seen by all.
#
#   --nproc_per_node N  ranks on this node (default: its GPUs, or 1 without any)
#   --nnodes N          nodes (default 1)
#   --node_rank N       this node's number with several nodes, from 0 (default: what Slurm says)
#   --master_addr HOST  node 0, where all meet
#   --master_port PORT  a free port there (default 29500)
#   --max_restarts N    starts again after a failure, from the newest checkpoint (default 0); not after exit code 2. On
#                       several nodes a failure ends the ranks of all, and the script of each starts its own again.
# shellcheck disable=SC2154,SC2034  # take_option assigns variables by name, and jobs.sh reads PATIENCE
set -euo pipefail
# shellcheck source=launch/jobs.sh
source "$(dirname "${BASH_SOURCE[0]}")/jobs.sh"
read_arguments "$@"
gpus=$(nvidia-smi --list-gpus 2>/dev/null | grep -c ^GPU || true)
take_option nproc_per_node "$([ "${gpus:-0}" -gt 0 ] && echo gpu || echo 1)"
take_option nnodes 1
take_option node_rank "${SLURM_NODEID:-}"
take_option master_addr ""
take_option master_port 29500
launcher=("$PYTHON" -m torch.distributed.run --nproc-per-node "$nproc_per_node")
if [ "$nnodes" = 1 ]; then
    require_port "" "$master_port"
    launcher+=(--master-addr 127.0.0.1 --master-port "$master_port")
else
    [[ $node_rank =~ ^[0-9]+$ ]] || refuse "--node_rank is ${node_rank:-missing}: --nnodes $nnodes needs every node's own number, from 0"
    [ -n "$master_addr" ] || refuse "--nnodes $nnodes needs --master_addr HOST, node 0, where all meet: give the same one on every node"
    if [ "$node_rank" = 0 ]; then require_port "$master_addr" "$master_port"; fi
    # numbers, and not torchrun's own election: a node that has lost the network would wait for that without an end
    launcher+=(--rdzv-backend static --nnodes "$nnodes" --node-rank "$node_rank")
    launcher+=(--master-addr "$master_addr" --master-port "$master_port")
    PATIENCE=30
fi
run_job "${launcher[@]}" -m refiner_ds.train "${ARGUMENTS[@]}"
