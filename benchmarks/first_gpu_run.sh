#!/bin/sh
# The first measurements on a GPU, as three calls of at most ten minutes each, tables last.
# Usage, in the root of a checkout: sh benchmarks/first_gpu_run.sh 1|2|3 [PYTHON]
# Needs torch, transformers and pytest; the package need not be installed.
set -u
step=${1:?"1, 2 or 3"}
python=${2:-python3}
export PYTHONPATH=.:benchmarks:tests PYTHONUNBUFFERED=1
mkdir -p out

case $step in
1) # does it work, and is it right: the tests, then one workload with the speeds of products
  timeout 420 "$python" -m pytest -o addopts= -q -m gpu tests/engines
  "$python" benchmarks/gpu.py --shapes 7b --workloads w-a --rounds 2 --time-limit 150 \
    --json out/gpu-1.json ;;
2) # how fast: both shapes, all workloads, beside padded batches
  "$python" benchmarks/gpu.py --time-limit 540 --json out/gpu-2.json ;;
3) # how exact: what a dtype costs in the arithmetic of larger models
  timeout 570 "$python" benchmarks/precision.py --device cuda --models 0.5b 7b --pairs 60 ;;
*) echo "got step $step; there are 1, 2 and 3" >&2; exit 2 ;;
esac
