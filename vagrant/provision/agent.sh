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
/opt/reconciler/bin/pip install --quiet --disable-pip-version-check --no-index \
    --find-links "$shared/wheels" --force-reinstall --no-deps "$shared"/wheels/*.whl
ln -sf /opt/reconciler/bin/reconciler /usr/local/bin/reconciler

known=$(mktemp)
printf '%s %s\n' "$forge" "$(cut -d' ' -f1,2 "$shared/forge_host_key.pub")" >"$known"
reconciler agent install --repo "ssh://git@$forge/srv/state.git" \
    --inventory inventories/demo/hosts.yml --interval 10s \
    --deploy-key "$shared/deploy_key" --known-hosts "$known"
rm -f "$known"
