#!/bin/sh
# Makes a virtual environment with this project. Usage: install.sh VENV [WHEEL [GROUP]]
# With a wheel, just that and what it needs, and a dependency group if one is named; else the
# checkout, editable, with all that work on it needs.
# Without a GPU, torch is a CPU build wherever one can be had; the default build for Linux
# brings gigabytes of CUDA libraries.
set -eu
venv=$1
wheel=${2:-}
group=${3:-}
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
pip="$venv/bin/python -m pip --disable-pip-version-check"
torch=$(grep '^torch==' constraints.txt)

wants_cpu_torch() {
  [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1
}

install_cpu_torch() {
  $pip install -q "$torch+cpu" 2>/dev/null && return
  $pip install -q uv 2>/dev/null &&
    "$venv/bin/uv" pip install -q --python "$venv/bin/python" --torch-backend=cpu "$torch" 2>/dev/null
}

if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
  echo "Installing $torch into $venv"
  if ! wants_cpu_torch || ! install_cpu_torch; then
    $pip install -q -c constraints.txt "$torch"
  fi
fi
echo "Installing drsow-plugin and what it needs into $venv"
if [ -z "$wheel" ]; then
  set -- -e . --group dev
else
  set -- "$wheel" ${group:+--group "$group"}
fi
$pip install -q 'pip>=25.1' # the first that knows dependency groups
$pip install -q -c constraints.txt "$@"
touch "$venv/.installed"
