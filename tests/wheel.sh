#!/bin/sh
# Build the sdist and, from it, the wheel; install each into an environment of its own and let it
# build the quickstart recipe, far from the checkout. Usage: wheel.sh PYTHON-WITH-BUILD
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
there=$(mktemp -d)
trap 'rm -rf "$there"' EXIT INT TERM
quiet() { "$@" >"$there/log" 2>&1 || { cat "$there/log"; exit 1; }; }

quiet "$1" -m build --outdir "$there/dist" "$root"
for package in "$there"/dist/*.whl "$there"/dist/*.tar.gz; do
  env=$there/env-${package##*.}
  "${PYTHON:-python3}" -m venv "$env"
  quiet "$env/bin/pip" install --constraint "$root/constraints.txt" "$package"
  cp -R "$root/examples/quickstart" "$env/quickstart"
  rm -rf "$env/quickstart/out"
  cd "$env"
  "$env/bin/pem" check quickstart/quickstart.pem
  "$env/bin/pem" build quickstart/quickstart.pem >"$env/built"
  wanted=$(grep -c '^save' quickstart/quickstart.pem)
  test "$(ls quickstart/out/*/adapter_model.safetensors | wc -l)" -eq "$wanted"
  if "$env/bin/python" -c "import torch" 2>/dev/null; then
    echo "${package##*/} brings torch: a build must not need it"
    exit 1
  fi
  echo "${package##*/}: installed alone, it builds the quickstart recipe"
done
