#!/bin/sh
# An agent that follows the forge: agent.sh SHARED FORGE
set -eu
shared=$1
forge=$2

if ! command -v git >/dev/null || ! python3 -c 'import ensurepip' 2>/dev/null; then
    apt-get update -q
    apt-get install -q -y --no-install-recommends git openssh-client python3-venv
fi
[ -x /opt/reconciler/bin/pip ] || python3 -m venv /opt/reconciler
pip() { /opt/reconciler/bin/pip install --quiet --disable-pip-version-check "$@"; }
pip --find-links "$shared/wheels" --require-hashes --requirement "$shared/product.txt"
pip --no-deps --force-reinstall "$shared"/wheels/reconciler-*.whl
ln -sf /opt/reconciler/bin/reconciler /usr/local/bin/reconciler

# With libvirt all machines come up at once: wait up to five minutes for the forge.
key=$(cut -d' ' -f1,2 "$shared/forge_host_key.pub")
tries=300
until [ "$(ssh-keyscan -t ed25519 "$forge" 2>/dev/null | cut -d' ' -f2,3)" = "$key" ]; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || { echo "agent.sh: no forge at $forge: vagrant up forge" >&2; exit 1; }
    sleep 1
done

known=$(mktemp)
printf '%s %s\n' "$forge" "$key" >"$known"
reconciler agent install --repo "ssh://git@$forge/srv/state.git" \
    --inventory inventories/demo/hosts.yml --interval 10s \
    --deploy-key "$shared/deploy_key" --known-hosts "$known"
rm -f "$known"
