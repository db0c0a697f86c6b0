#!/usr/bin/env bash
# Trains with torchrun, on one node or on several; every further argument goes to training unchanged.
#
#   bash launch/torchrun.sh [--nproc_per_node 8] --shards ... --output_dir runs/x ...
#   bash launch/torchrun.sh --nnodes 8 --nproc_per_node 8 --master_addr node0 --shards ... --output_dir /shared/runs/x ...
#
# On several nodes start the same command on each of them; node0 is one of them, and the folders are seen by all.
#
#   --nproc_per_node N  ranks on this node (default: its GPUs, or 1 without any)
#   --nnodes N          nodes (default 1)
#   --master_addr HOST  the node where all meet, with several nodes
#   --master_port PORT  a free port there (default 29500)
#   --rdzv_id NAME      tells this job from another that meets there (default: the output folder)
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
take_option master_addr ""
take_option master_port 29500
take_option rdzv_id "$OUTPUT_DIR"
launcher=("$PYTHON" -m torch.distributed.run --nproc-per-node "$nproc_per_node")
if [ "$nnodes" = 1 ]; then
    require_port "" "$master_port"
    launcher+=(--master-addr 127.0.0.1 --master-port "$master_port")
else
    [ -n "$master_addr" ] || refuse "--nnodes $nnodes needs --master_addr HOST, the node where all meet: give the same one on every node"
    require_port "$master_addr" "$master_port"
    launcher+=(--nnodes "$nnodes" --rdzv-backend c10d --rdzv-endpoint "$master_addr:$master_port" --rdzv-id "$rdzv_id")
    # torchrun itself takes no node for the meeting place whose own name leads to 127.0.1.1, and all wait for it
    [ -z "$IS_HERE" ] || launcher+=(--rdzv-conf is_host=true)
    PATIENCE=30
fi
run_job "${launcher[@]}" -m refiner_ds.train "${ARGUMENTS[@]}"
