#!/usr/bin/env bash
# What has to be there before anything can be compiled: a C compiler for musl (ring) and the target of static binaries.
# Everything else `matriarch-e2e deps` installs.
set -euo pipefail
missing=()
command -v musl-gcc >/dev/null || missing+=(musl-tools)
command -v cc >/dev/null || missing+=(gcc libc6-dev)
[ -x /usr/lib/postgresql/15/bin/postgres ] || missing+=(postgresql-15)
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >/dev/null
  # The unit tests start their own servers; Debian's must not.
  mkdir -p /etc/postgresql-common
  [ -e /etc/postgresql-common/createcluster.conf ] || echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf
  apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
fi
for tool in cargo go; do
  command -v "$tool" >/dev/null || { echo "needed: $tool, see README.md" >&2; exit 1; }
done
target=x86_64-unknown-linux-musl
if command -v rustup >/dev/null && ! rustup target list --installed | grep -qx "$target"; then
  rustup target add "$target" || echo "no $target: static binaries are built for glibc instead"
fi
