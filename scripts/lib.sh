# shellcheck shell=bash
# What the scripts share: `need` installs what is missing, `build_release` compiles. Sourced, not run.

# The working directory stays the caller's, so that relative paths among the options mean what they say.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '==> %s\n' "$*" >&2; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# need swift|headers|postgres|openssl|nginx|pgbouncer|python|pgq … — makes sure that these are there, and installs only what is missing.
need() {
  local packages=() reasons=() what
  for what in "$@"; do
    case $what in
      swift) need_swift ;;
      headers)
        has pkg-config || want pkg-config "pkg-config, which finds libraries"
        has_library libpq || want libpq-dev "libpq's headers"
        has_library libcurl || want libcurl4-openssl-dev "libcurl's headers"
        ;;
      postgres) has_postgres || want postgresql "a PostgreSQL server, for throwaway databases" ;;
      openssl) has openssl || want openssl "openssl, for throwaway certificates" ;;
      nginx) has nginx || want nginx-light "nginx, a receiver for benchmarks and for tests of TLS and HTTP/2" ;;
      pgbouncer) has pgbouncer || want pgbouncer "pgbouncer, for tests behind a pooler" ;;
      python) has_venv || want python3-venv "Python with venv, to install the peers of Benchmarks/" ;;
      pgq) has_pgq || want "postgresql-$(newest_postgres)-pgq3" "PgQ, one of the peers of Benchmarks/" ;;
      *) fail "need: unknown: $what" ;;
    esac
  done
  [ ${#packages[@]} -eq 0 ] || install
}

# Both write need's own variables.
want() {
  packages+=("$1")
  reasons+=("$2")
}

install() {
  local i
  for i in "${!packages[@]}"; do say "missing: ${reasons[i]} (package ${packages[i]})"; done
  has apt-get || fail "this script can install packages on Debian and Ubuntu only. Please install: ${reasons[*]}"
  local sudo=()
  if [ "$(id -u)" -ne 0 ]; then
    has sudo || fail "not root, and no sudo. Please install as root: apt-get install ${packages[*]}"
    sudo=(sudo)
  fi
  say "${sudo[*]:+with sudo: }apt-get install ${packages[*]}"
  # In one root shell, so that sudo asks at most once.
  "${sudo[@]}" bash -c "$install_as_root" install "${packages[@]}" >&2 ||
    fail "apt-get could not install: ${packages[*]}"
}

# Debian creates and starts a database cluster on port 5432 when its server is first installed. Only the programs are
# wanted here, so that is switched off for as long as the installation takes. nginx, too, must not be started.
# shellcheck disable=SC2016 # for the other shell to expand
install_as_root='
  set -euo pipefail
  export DEBIAN_FRONTEND=noninteractive
  cluster=/etc/postgresql-common/createcluster.d/martlet-install.conf
  policy=/usr/sbin/policy-rc.d
  undo() {
    rm -f "$cluster"
    [ -z "${made_policy:-}" ] || rm -f "$policy"
  }
  trap undo EXIT
  mkdir -p "${cluster%/*}"
  echo "create_main_cluster = false" >"$cluster"
  if [ ! -e "$policy" ]; then
    made_policy=1
    printf "#!/bin/sh\nexit 101\n" >"$policy"
    chmod 755 "$policy"
  fi
  apt-get -qq update
  apt-get -qq -y --no-install-recommends install "$@" </dev/null
'

has() { [ -x "$(PATH=$PATH:/usr/sbin:/sbin command -v "$1")" ]; }
has_library() { has pkg-config && pkg-config --exists "$1"; }

# The same places, in the same order, as EmbeddedPostgres looks.
has_postgres() {
  local directory
  if [ -n "${MARTLET_PG_BIN:-}" ]; then
    [ -x "$MARTLET_PG_BIN/initdb" ] || fail "MARTLET_PG_BIN is set to $MARTLET_PG_BIN, but there is no initdb in it"
    return 0
  fi
  for directory in "$(pg_config --bindir 2>/dev/null || :)" /usr/lib/postgresql/*/bin; do
    if [ -x "$directory/initdb" ] && [ -x "$directory/postgres" ]; then return 0; fi
  done
  has initdb && has postgres
}

# PgQ is an extension, of Debian's packages only.
newest_postgres() { printf '%s\n' /usr/lib/postgresql/*/bin/postgres | sort -V | tail -n 1 | cut -d / -f 5; }
has_pgq() { [ -e "/usr/share/postgresql/$(newest_postgres)/extension/pgq.control" ]; }
has_venv() { has python3 && python3 -c 'import ensurepip, venv' 2>/dev/null; }

need_swift() {
  local version
  has swift || fail "Swift is missing (6.2 or newer is needed). Install it: https://swift.org/install"
  version=$(swift --version 2>/dev/null | sed -n 's/.*Swift version \([0-9]*\.[0-9]*\).*/\1/p')
  if [ "$(printf '%s\n' 6.2 "$version" | sort -V | head -n 1)" != 6.2 ]; then
    fail "Swift ${version:-of unknown version} is too old (6.2 or newer is needed): https://swift.org/install"
  fi
}

build_release() {
  say "building martlet (a first build takes some minutes)"
  swift build --package-path "$root" -c release --product martlet >&2 || fail "the build failed"
}
