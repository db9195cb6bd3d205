# The set-up that every script shares. To be sourced by bash, never run:
#
#   set_up run    what the vault needs     set_up dev    and what its tests and checks need
#
# Afterwards $root is the checkout and $venv the environment, at $PORTVAULT_VENV or .venv in the
# checkout. What was installed is recorded in a stamp inside the environment, so that the next run
# compares a few hashes and installs nothing. Any number of scripts may start at once: one installs
# and the others wait. An environment made by hand is adopted. Nothing here reads from a terminal
# or needs $HOME.
#
# Says what it does on standard error; standard output belongs to the script.

set -euo pipefail
root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
venv="${PORTVAULT_VENV:-$root/.venv}"
[[ $venv == /* ]] || venv="$PWD/$venv"
cd -- "$root"
# Another installation's paths must not leak into this one.
unset PYTHONHOME PYTHONPATH

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "$@"
    exit 1
}

set_up() {
    _is_current "$1" && return
    # The lock lies beside the environment, since the environment itself may be made anew. The
    # subshell lets go of it, so that no server started later holds on to it.
    (
        mkdir -p -- "$(dirname -- "$venv")"
        if command -v flock >/dev/null; then
            exec 9>"$venv.lock"
            if ! flock -n 9; then
                say "Waiting for another set-up of $venv ..."
                flock 9
            fi
        fi
        _is_current "$1" || _install "$1"
    )
}

# What the environment was made from, and for: a change of any of it makes the stamp stale.
_stamp() {
    printf '%s\n' "$root"
    sed -n 's/^version\(_info\)\{0,1\} *= *//p' "$venv/pyvenv.cfg"
    sha256sum requirements.lock requirements-dev.lock pyproject.toml
}

_is_current() {
    local kind
    [[ -x $venv/bin/portvault && -x $venv/bin/python ]] || return 1
    # Whoever has the tests' environment has the vault's too.
    for kind in "$1" dev; do
        [[ -f $venv/portvault-$kind.stamp ]] &&
            [[ $(<"$venv/portvault-$kind.stamp") == "$(_stamp)" ]] && return
    done
    return 1
}

_install() {
    local lock=requirements.lock
    [[ $1 == run ]] || lock=requirements-$1.lock
    if ! _works "$venv/bin/python"; then
        [[ ! -e $venv || -f $venv/pyvenv.cfg ]] ||
            fail "$venv exists and is no virtual environment; remove it, or set PORTVAULT_VENV."
        _make_environment
    fi
    say "Installing what is pinned in $lock (once, a minute or so) ..."
    _pip ${python_version:+--no-compile} --require-hashes -r "$lock"
    _pip --no-deps --no-build-isolation --no-index -e .
    # Last, and in one step: an interrupted installation leaves no stamp.
    _stamp >"$venv/portvault-$1.stamp.new"
    mv -- "$venv/portvault-$1.stamp.new" "$venv/portvault-$1.stamp"
}

_make_environment() {
    local python
    # Another version than the usual one is found by pythons.sh.
    if [[ -n ${python_version:-} ]]; then find_python_version; else python="$(_find_python)"; fi
    say "Making a virtual environment in $venv ..."
    "$python" -m venv --clear "$venv" </dev/null >&2
}

# Debian's own first: it is built with profiles, which those of version managers mostly are not, and
# a server spends a quarter less time in it. Then what the tests run on, then any other.
_find_python() {
    local name python first=
    for name in /usr/bin/python3.11 python3.11 python3.13 python3 python3.12 python3.14; do
        _works "$name" || continue
        python="$("$name" -c 'import sys; print(sys.executable)')"
        first="${first:-$python}"
        if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            printf '%s\n' "$python"
            return
        fi
    done
    [[ -z $first ]] ||
        fail "$first cannot make virtual environments. On Debian and Ubuntu:" \
            "apt-get install python3-venv"
    fail "Portvault needs Python 3.11 or newer, and none is on PATH. On Debian and Ubuntu:" \
        "apt-get install python3 python3-venv"
}

_works() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 </dev/null
}

# pip is quiet when it succeeds; when it does not, everything it said is shown.
_pip() {
    local said
    said="$(PIP_USER=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
        "$venv/bin/python" -m pip install --progress-bar off "$@" </dev/null 2>&1)" ||
        fail "$said" $'\n'"The installation failed; what pip said is above."
}

# set_up_system PROGRAM:PACKAGE... installs the packages whose program is not on PATH: by apt-get,
# as root or with sudo where it asks no password. Otherwise says what is missing, and goes on: the
# tests that need it fail and say so, all others run.
set_up_system() {
    local pair missing=() as_root=()
    # Daemons live in sbin on some systems, which a plain user's PATH leaves out.
    PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    ((${#missing[@]})) || return 0
    if [[ $EUID != 0 ]]; then
        as_root=(sudo -n)
    fi
    if ! command -v apt-get >/dev/null ||
        { [[ $EUID != 0 ]] && ! sudo -n true 2>/dev/null; }; then
        say "These system packages are missing, and only root can install them (as Debian names" \
            "them): ${missing[*]}. The tests that need them will fail."
        return 0
    fi
    say "Installing system packages for the tests (once): ${missing[*]} ..."
    _apt_install "${missing[@]}" || { _apt update && _apt_install "${missing[@]}"; } ||
        say "apt-get could not install ${missing[*]}. The tests that need them will fail."
}

_apt_install() { _apt install -y -qq --no-install-recommends "$@"; }

_apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -o DPkg::Lock::Timeout=600 "$@" </dev/null >&2
}

# set_up_npm DIRECTORY installs the npm packages of a committed lock file beside the environment's
# own, at $venv/npm/NAME. Without Node.js it says so and goes on, as above. No package's own script
# is run.
set_up_npm() {
    local name place
    name="$(basename -- "$1")"
    place="$venv/npm/$name"
    [[ -f $place/stamp ]] &&
        [[ $(<"$place/stamp") == "$(sha256sum <"$root/$1/package-lock.json")" ]] && return
    if ! command -v npm >/dev/null; then
        say "Node.js and npm are missing; the tests of $1 will fail."
        return 0
    fi
    say "Installing the npm packages of $1 (once) ..."
    mkdir -p -- "$place"
    cp -- "$root/$1/package.json" "$root/$1/package-lock.json" "$place/"
    (cd -- "$place" && npm ci --ignore-scripts --no-audit --no-fund </dev/null >&2) ||
        fail "npm could not install what $1/package-lock.json names."
    sha256sum <"$root/$1/package-lock.json" >"$place/stamp"
}
