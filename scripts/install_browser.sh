#!/usr/bin/env bash
# Installs Chromium and a font, with which the tests open pages, from the packages of Debian or Ubuntu.
# Does nothing if both are installed.
set -euo pipefail
if [ -x /usr/bin/chromium ] && [ -n "$(fc-list 2>/dev/null | head -c 1)" ]; then
  exit 0
fi
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
if ! command -v apt-get >/dev/null; then
  echo "error: /usr/bin/chromium is missing, and there is no apt-get to install it; install Chromium there" >&2
  exit 1
fi
echo "Installing Chromium" >&2
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
  chromium fontconfig fonts-dejavu-core >/dev/null
