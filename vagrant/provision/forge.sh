#!/bin/sh
# A Git server over ssh: forge.sh SHARED
set -eu
shared=$1

command -v git >/dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends git; }
id git >/dev/null 2>&1 || useradd --create-home --shell /usr/bin/git-shell git

install -d -o git -g git -m 0700 /home/git/.ssh
printf 'restrict %s\n' "$(cat "$shared/deploy_key.pub")" >/home/git/.ssh/authorized_keys
chown git:git /home/git/.ssh/authorized_keys
chmod 0600 /home/git/.ssh/authorized_keys

if [ ! -d /srv/state.git ]; then
    git init --quiet --bare --initial-branch=main /srv/state.git
    work=$(mktemp -d)
    cp -r "$shared/state/." "$work"
    git -C "$work" init --quiet --initial-branch=main
    git -C "$work" add --all
    git -C "$work" -c user.name=demo -c user.email=demo@example.org commit --quiet -m "the beginning"
    git -C "$work" push --quiet /srv/state.git main
    rm -rf "$work"
fi
chown -R git:git /srv/state.git
# root works in it too, in the demo.
git config --system --replace-all safe.directory /srv/state.git

# The machines know the forge by this key from the start; it comes last, so that it says: ready.
install -m 0600 "$shared/forge_host_key" /etc/ssh/ssh_host_ed25519_key
install -m 0644 "$shared/forge_host_key.pub" /etc/ssh/ssh_host_ed25519_key.pub
systemctl restart ssh
