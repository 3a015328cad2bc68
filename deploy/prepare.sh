#!/bin/sh
# Makes what compose.yaml mounts and is missing, in secrets/: API keys, a password for Grafana and, to
# begin with, a certificate that nobody has signed. What is there is left as it is.
#
#   deploy/prepare.sh search.shop.example
set -eu
site=${1:?the host that clients ask for is missing, such as search.shop.example}
cd "$(dirname "$0")"
# How to run the product's commands.
lookalike=${LOOKALIKE:-docker run --rm --network none ${LOOKALIKE_IMAGE:-lookalike:cpu}}

# Nobody else on this machine gets into the folder; containers have users of their own, and read the files.
mkdir -p secrets/tls
chmod 700 secrets
chmod 755 secrets/tls
umask 022

new_key() { # name, rights: prints the key and its lines for the key file, as JSON
    $lookalike new-key "$1" --rights "$2" --json
}
key_of() { printf '%s\n' "$1" | sed -n 's/^ *"key": "\(.*\)",$/\1/p'; }
lines_of() { printf '%b\n' "$(printf '%s\n' "$1" | sed -n 's/^ *"lines": "\(.*\)"$/\1/p' | sed 's/\\"/"/g')"; }

if [ ! -e secrets/api-keys.toml ]; then
    scraper=$(new_key prometheus metrics)
    first=$(new_key first read,write,admin,metrics)
    printf '%s' "$(key_of "$scraper")" >secrets/prometheus.key
    { lines_of "$scraper" && lines_of "$first"; } >secrets/api-keys.toml
    echo "The first API key, shown this once: $(key_of "$first")"
fi
[ -e secrets/grafana.password ] || openssl rand -hex 24 | tr -d '\n' >secrets/grafana.password
if [ ! -e secrets/tls/certificate.pem ]; then
    case $site in *[!0-9.]*) kind=DNS ;; *) kind=IP ;; esac
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 90 \
        -subj "/CN=$site" -addext "subjectAltName=$kind:$site" \
        -keyout secrets/tls/key.pem -out secrets/tls/certificate.pem 2>/dev/null
    chmod 644 secrets/tls/key.pem
    echo "secrets/tls has a self-signed certificate for 90 days: put a real one in its place."
fi
[ -e .env ] || echo "LOOKALIKE_SITE=$site" >.env
