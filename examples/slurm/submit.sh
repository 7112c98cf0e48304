#!/bin/bash
# Labels a data set in shards and merges them: submit.sh SHARDS INPUT OUTPUT [options of drsow annotate]
set -euo pipefail
if [ $# -lt 3 ]; then
  echo "submit.sh SHARDS INPUT OUTPUT [options of drsow annotate]" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
job=$(sbatch --parsable --array="1-$1" "$here/annotate.sbatch" "$@")
# Merging needs no GPU, and waits until every shard is done without an error.
merge=$(env -u SBATCH_GPUS -u SBATCH_GPUS_PER_NODE -u SBATCH_GRES sbatch --parsable \
  --dependency="afterok:${job%%;*}" --kill-on-invalid-dep=yes "$here/merge.sbatch" "$3")
echo "shards: job ${job%%;*}, then merge: job ${merge%%;*}"
