#!/bin/sh
# What the tests of pages in a browser need: Chromium with its driver, and axe-core.
# Usage: install_pages.sh FOLDER, with the Python to install for in PYTHON. Chromium is installed
# where it is missing and apt-get may: as root, on Debian and its kin.
set -eu
folder=$1
axe=axe-playwright-python==0.1.8 # which has axe-core 4.12.1 in it; Playwright itself is not needed

has_browser() {
  { command -v chromium || command -v google-chrome; } >/dev/null 2>&1 &&
    command -v chromedriver >/dev/null 2>&1
}

if ! has_browser; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "Chromium and chromedriver are missing, and only root may install them, by apt-get:" >&2
    echo "  apt-get install chromium chromium-driver" >&2
    exit 1
  fi
  echo "Installing Chromium"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
    chromium chromium-driver >/dev/null
fi
[ "$(cat "$folder/.installed" 2>/dev/null)" = "$axe" ] && exit 0
"${PYTHON:-python3}" -m pip --disable-pip-version-check install -q --no-deps --upgrade \
  --target "$folder" "$axe"
echo "$axe" >"$folder/.installed"
