#!/bin/sh
# The first step, run in a container of its own: makes the secrets, and then the node's keys and certificates with
# `gantry init`, which gets what stands behind. What is there already is kept, so it may be run again.
set -eu
umask 077
secrets=${SECRETS:-/secrets}
state=${STATE:-/var/lib/gantry}
# Who reads them: gantry refuses secrets that others may read, so both owner and mode must be right.
user=${RUN_AS:-10001}

random() {
    head -c "$1" /dev/urandom | od -An -v -tx1 | tr -d ' \n'
}

# Under another name first: a file that is there is whole.
secret() {
    if [ -e "$secrets/$1" ]; then
        echo "kept  secrets/$1"
        return
    fi
    printf '%s\n' "$2" >"$secrets/$1.new"
    chown "$user:$user" "$secrets/$1.new"
    mv "$secrets/$1.new" "$secrets/$1"
    echo "made  secrets/$1"
}

secret postgres-password "$(random 32)"
secret s3-key "$(printf 'GK%s\n%s' "$(random 12)" "$(random 32)")"
secret s3-rpc "$(random 32)"

if [ -e "$state/data/keys/current" ] && [ -e "$state/tls/node.crt" ]; then
    echo "kept  the node's keys and certificates"
    exit 0
fi
made=$(setpriv --reuid="$user" --regid="$user" --clear-groups gantry init "$state" --non-interactive "$@")
# The configuration is the one beside compose.yaml; a second one would only be mistaken for it.
rm "$state/gantry.toml"
echo "made  the node's keys and certificates"
echo
# What partners have to know.
printf '%s\n' "$made" | sed -n '/^Certificate/,/^$/p'
