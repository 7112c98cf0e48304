#!/bin/sh
# Compares the files of a wheel with the tree, installs it into a clean environment and runs it
# from outside the checkout. Usage: check_wheel.sh [WHEEL]
# Without a wheel, builds one. PYTHON: the interpreter to build with and to make environments of.
set -eu
root=$(pwd)
python=$(command -v "$PYTHON")
python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ $# -eq 0 ]; then
  "$python" -m pip --disable-pip-version-check wheel -q --no-deps -w "$work/dist" "$root"
  set -- "$work"/dist/drsow_plugin-*.whl
fi
wheel=$1

"$python" - "$wheel" <<'PY'
import pathlib, subprocess, sys, zipfile
packed = {n for n in zipfile.ZipFile(sys.argv[1]).namelist() if ".dist-info/" not in n}
tracked = subprocess.run(
    ["git", "ls-files", "drsow_plugin", "hooks", "tasks"], capture_output=True, text=True, check=True
).stdout.split()
mapped = ("hooks/", "tasks/")
expected = {f"drsow_plugin/{n}" if n.startswith(mapped) else n for n in tracked}
if packed != expected:
    sys.exit(f"wheel and tree differ: {sorted(packed ^ expected)}")
print(f"{pathlib.Path(sys.argv[1]).name}: {len(packed)} files, as in the tree")
PY

PYTHON="$python" sh scripts/install.sh "$work/env" "$wheel"
cd "$work"
"$work/env/bin/python" - <<'PY'
import drsow_plugin
assert "/env/" in drsow_plugin.__file__, drsow_plugin.__file__
from drsow_plugin import tasks_path
assert "/env/" in tasks_path(), tasks_path()
PY
"$work/env/bin/drsow" enable
"$work/env/bin/lm_eval" --model dummy --tasks llmbar --limit 2 2>/dev/null | grep '^|llmbar '
"$work/env/bin/drsow" annotate --help >/dev/null
cp -r "$root/examples/plugin-legal" "$work/plugin-legal"
"$work/env/bin/python" -m pip --disable-pip-version-check install -q "$work/plugin-legal"
"$work/env/bin/drsow" plugins | grep 'domain legal, router legal'
echo 'Can my landlord raise the rent?' | "$work/env/bin/drsow" route --router legal --json |
  grep '"domain": "legal"'
"$work/env/bin/drsow" status
