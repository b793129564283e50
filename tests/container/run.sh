#!/usr/bin/env bash
# Builds the CPU image and runs it as it is meant to be run: not root, root file system read-only,
# no capabilities, no new privileges, memory and processes limited. `make container-test`.
#
# Needs root and, without a Docker engine or an image registry, Debian's packages podman runc
# catatonit buildah debootstrap.
#
#   BASE_IMAGE   what to build on; without it a Debian made by debootstrap
#   IMAGE        an image to test instead of building one
#   PIP_…        pip's settings of this shell go into the build; files that they name are mounted
#
# Without systemd podman says at every start that it cannot set a timer for the health check; this
# script runs the check itself.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'podman rm --force --ignore --volumes swarmnode-test >/dev/null 2>&1; rm -rf "$work"' EXIT
say() { printf '\n== %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

for tool in podman buildah; do
    command -v "$tool" >/dev/null || fail "$tool is missing"
done
[ "$(id -u)" = 0 ] || fail "this needs root: it mounts and makes namespaces"

make_base() {
    local suite=bookworm
    podman image exists localhost/swarmnode-base && return
    command -v debootstrap >/dev/null || fail "debootstrap is missing; or set BASE_IMAGE"
    say "making a base image of Debian $suite"
    debootstrap --variant=minbase "$suite" "$work/base" >"$work/debootstrap.log" ||
        { tail "$work/debootstrap.log"; fail debootstrap; }
    tar -C "$work/base" -c . | podman import - localhost/swarmnode-base >/dev/null
    rm -rf "$work/base"
}

build() {
    local flags=()
    # chroot: a build container of ours needs no more isolation, and this runs inside containers too.
    flags+=(--isolation chroot --format docker --layers=false --target cpu)
    flags+=(--build-arg "BASE_IMAGE=$BASE_IMAGE" --file docker/Dockerfile --tag "$IMAGE")
    for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL; do
        [ -z "${!name:-}" ] || flags+=(--build-arg "$name=${!name}")
    done
    # What lies on this machine is seen by the build where it does not hide the image's own files.
    for name in PIP_CERT PIP_FIND_LINKS; do
        [ -e "${!name:-}" ] || continue
        flags+=(--build-arg "$name=/run/$name" --volume "${!name}:/run/$name:ro")
    done
    say "building $IMAGE on $BASE_IMAGE"
    nice buildah build "${flags[@]}" . >"$work/build.log" 2>&1 ||
        { tail -n 30 "$work/build.log"; fail "the build"; }
}

if [ -z "${IMAGE:-}" ]; then
    IMAGE=localhost/swarmnode:test
    if [ -z "${BASE_IMAGE:-}" ]; then
        make_base
        BASE_IMAGE=localhost/swarmnode-base
    fi
    build
fi

# The flags of compose.yaml; the ulimits are ours, so that podman does not raise them.
hardened=(--read-only --read-only-tmpfs=false --tmpfs /tmp:mode=1777,size=256m --cap-drop=ALL
    --security-opt=no-new-privileges --network=none --init --memory=4g --pids-limit=512
    --ulimit nofile=4096:4096 --ulimit nproc=4096:4096 --env OMP_NUM_THREADS=1)
in_image() { podman run --rm "${hardened[@]}" --entrypoint '["sh", "-euc"]' "$IMAGE" "$1"; }

say "what is in the image"
[ "$(podman image inspect --format '{{.Config.User}}' "$IMAGE")" = 10001:10001 ] || fail "its user"
check=$(podman image inspect --format '{{index .Config.Healthcheck.Test 1}}' "$IMAGE")
in_image '
    id
    test "$(id -u)" = 10001
    grep -E "^(CapEff|CapBnd|NoNewPrivs):" /proc/self/status
    grep -q "^CapBnd:.*0000000000000000$" /proc/self/status
    grep -q "^NoNewPrivs:.*1$" /proc/self/status
    for tool in gcc cc g++ make ld pip pip3 git; do
        ! command -v "$tool" || { echo "$tool is in the image"; exit 1; }
    done
    ! touch /opt/swarmnode/x 2>/dev/null || { echo "the root is not read-only"; exit 1; }
    ! touch /etc/x 2>/dev/null || { echo "the root is not read-only"; exit 1; }
    touch /runs/x /cache/x /tmp/x
    ! find / -xdev -name "*.key" -path "*swarmnode*" 2>/dev/null | grep . || { echo "a key"; exit 1; }
' || fail "the image is not as it should be"

in_image "
    mkdir -p /runs/runs/join-demo
    ! { $check; }
    touch -d '59 minutes ago' /runs/runs/join-demo/rounds.jsonl
    $check
    touch -d '61 minutes ago' /runs/runs/join-demo/rounds.jsonl
    ! { $check; }
" || fail "the health check: a round an hour ago"

say "swarmnode --version"
podman run --rm "${hardened[@]}" "$IMAGE" --version | tee "$work/version"
grep -Eqx "swarmnode [0-9.]+" "$work/version" || fail "swarmnode --version"

say "swarmnode doctor"
podman run --rm "${hardened[@]}" "$IMAGE" doctor --model demo --run /runs/node ||
    fail "swarmnode doctor"

say "swarmnode demo: two nodes, 14 rounds"
podman run --rm "${hardened[@]}" --volume swarmnode-test-runs:/runs "$IMAGE" \
    demo --out /runs/demo --nodes 2 --rounds 14 || fail "swarmnode demo"
podman volume rm --force swarmnode-test-runs >/dev/null

say "the health check of a node"
podman run --detach --name swarmnode-test "${hardened[@]}" "$IMAGE" \
    join --config /etc/swarmnode/node.toml --model demo --min-round-s 1 >/dev/null
! podman healthcheck run swarmnode-test >/dev/null || fail "healthy before the first round"
for _ in $(seq 600); do
    ! podman healthcheck run swarmnode-test >/dev/null || break
    sleep 1
done
podman healthcheck run swarmnode-test || fail "not healthy after ten minutes"
# Its metrics, on the port of node.toml, as Prometheus would see them.
podman exec swarmnode-test python -c '
from urllib.request import urlopen
text = urlopen("http://127.0.0.1:9464/metrics").read().decode()
(rounds,) = [line for line in text.splitlines() if line.startswith("swarmnode_rounds_total ")]
print(rounds)
assert float(rounds.split()[1]) >= 1
' || fail "its metrics"
podman stop --time 60 swarmnode-test >/dev/null
code=$(podman inspect --format '{{.State.ExitCode}}' swarmnode-test)
[ "$code" = 0 ] || { podman logs --tail 5 swarmnode-test; fail "stopped, it exited with $code"; }
podman logs swarmnode-test 2>&1 | tail -n 2

printf '\n6 passed, 0 failed\n'
