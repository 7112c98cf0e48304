#!/bin/sh
# Runs the tests that touch lm-eval against its next version. Usage: test_next.sh VENV
# VENV-next holds that version alone, and takes everything else from VENV.
set -eu
venv=$1
next=$venv-next
release=lm-eval==0.5.0.dev1

packages() {
  "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
}

if [ "$(cat "$next/.installed" 2>/dev/null)" != "$release" ]; then
  echo "Installing $release into $next"
  "$venv/bin/python" -m venv --clear --without-pip "$next"
  echo "import site; site.addsitedir('$(packages "$venv")')" >"$(packages "$next")/packages.pth"
  grep -v '^lm-eval==' constraints.txt >"$next/constraints.txt"
  "$next/bin/python" -m pip --disable-pip-version-check install -q \
    -c "$next/constraints.txt" "$release"
  echo "$release" >"$next/.installed"
fi
"$next/bin/python" -c 'from importlib import metadata; print("lm-eval", metadata.version("lm-eval"))'
exec "$next/bin/python" -m pytest -p no:cacheprovider tests/harness tests/cli/test_cli.py \
  tests/test_plugin_package.py tests/engines/test_positions.py::test_the_same_is_true_of_lm_eval \
  tests/scoring/test_oracles.py::test_lm_evals_hf_agrees_once_its_boundary_is_undone
