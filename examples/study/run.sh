#!/bin/sh
# The study of ten models: from the files of hh-rlhf to the section of docs/study.md.
# Usage: sh examples/study/run.sh HELPFUL HARMLESS [FOLDER]; with drsow's environment on the path.
# Killed, it goes on: models that are made are not made again, and log-probs are kept.
set -e
helpful=$(realpath "$1")
harmless=$(realpath "$2")
here=$(realpath "$(dirname "$0")")
mkdir -p "${3:-out/study}"
cd "${3:-out/study}"
python "$here/make_rows.py" "$helpful" "$harmless"
python "$here/make_models.py" --data train.jsonl --output models
drsow study --config "$here/ten_models.yaml"
python "$here/write_page.py" "$here/../../docs/study.md"
