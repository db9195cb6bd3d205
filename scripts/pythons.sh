# A Python of a version that is asked for. To be sourced by bash after setup.sh, never run:
#
#   use_python VERSION    what is set up afterwards has this version, in an environment beside the
#                         other: .venv-VERSION
#
# The machine's own is taken where it has one. On Debian it is otherwise fetched from the release
# that has it: by apt with a state of its own, so that the machine's stays as it is, and with its
# signatures checked. It is unpacked in .venv-VERSION-debian with the libraries that it was built
# with, and made to load these. Where there is none to be had, one line says so, and the status is
# 69 (EX_UNAVAILABLE).

declare -A DEBIAN_RELEASES=([3.13]=trixie)
DEBIAN_KEYS=/usr/share/keyrings/debian-archive-keyring.gpg
UNAVAILABLE=69

use_python() {
    # Node.js is the same for all of them.
    npm="$venv/npm"
    venv="$venv-$1"
    python_version="$1"
}

# share_npm has this environment use the npm packages of the other.
share_npm() {
    [[ ! -d $npm || -e $venv/npm ]] || ln -s -- "$npm" "$venv/npm"
}

# find_python_version sets $python; it runs in no $(...), in which a command that fails ends nothing.
find_python_version() {
    local name place="$venv-debian"
    python="$place/usr/bin/python$python_version"
    for name in "/usr/bin/python$python_version" "python$python_version" "$python"; do
        if "$name" -c 'import ensurepip, venv' 2>/dev/null </dev/null; then
            python="$("$name" -c 'import sys; print(sys._base_executable)')"
            return
        fi
    done
    _fetch_python "$place"
}

_unavailable() {
    say "Python $python_version was not run: $1."
    exit "$UNAVAILABLE"
}

_fetch_python() {
    local place="$1" new="$1.new" release mirror package name="python$python_version"
    release="${DEBIAN_RELEASES[$python_version]:-}"
    [[ -n $release ]] || _unavailable "it is not on PATH, and there is no release of Debian to take it from"
    mirror="$(_debian_mirror)"
    [[ -n $mirror && -f $DEBIAN_KEYS ]] ||
        _unavailable "it is not on PATH, and this is no Debian to fetch it with"
    set_up_system patchelf:patchelf
    command -v patchelf >/dev/null || _unavailable "the program patchelf is missing"
    say "Fetching Python $python_version of Debian $release (once) ..."
    rm -rf -- "$new"
    mkdir -p -- "$new"/apt/{lists,archives}/partial "$new/root"
    : >"$new/apt/status"
    printf 'deb [signed-by=%s] %s %s main\n' "$DEBIAN_KEYS" "$mirror" "$release" \
        >"$new/apt/sources.list"
    _private_apt "$new/apt" update ||
        _unavailable "Debian $release cannot be reached, or is not signed as it should be"
    _private_apt "$new/apt" install -y --no-install-recommends --download-only \
        "$name" "$name-venv" libstdc++6 || _unavailable "Debian $release does not give it"
    for package in "$new"/apt/archives/*.deb; do
        dpkg-deb -x "$package" "$new/root"
    done
    _settle "$new/root/usr" "$place/usr"
    rm -rf -- "$place"
    mv -- "$new/root" "$place"
    rm -rf -- "$new"
}

# Where this machine's own Debian comes from; nothing on another system.
_debian_mirror() (
    source /etc/os-release
    [[ $ID == debian ]] || return 0
    apt-get indextargets --no-release-info --format '$(RELEASE) $(REPO_URI)' |
        sed -n "s/^$VERSION_CODENAME //p" | sed -n 1p
)

_private_apt() {
    local state="$1"
    shift
    apt-get -qq -o APT::Sandbox::User="$(id -un)" -o APT::Update::Error-Mode=any \
        -o Dir::Etc::sourcelist="$state/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State="$state" -o Dir::State::status="$state/status" -o Dir::Cache="$state" \
        -o Dir::Log="$state" "$@" </dev/null >&2
}

# _settle UNPACKED PLACE makes the interpreter run from PLACE, on the libraries that came with it,
# since the machine's may be older.
_settle() {
    local libraries loader
    libraries="$(cd -- "$1/lib" && echo *-linux-gnu*)"
    loader="$(cd -- "$1/lib/$libraries" && echo ld-linux*.so.*)"
    patchelf --set-interpreter "$2/lib/$libraries/$loader" "$1/bin/python$python_version"
    patchelf --force-rpath --set-rpath "$2/lib/$libraries" "$1/bin/python$python_version"
    # Where pip's wheel lies, for new environments.
    sed -i "s#'/usr/share/python-wheels/'#'$2/share/python-wheels/'#" \
        "$1/lib/python$python_version"/_sysconfigdata_*.py
}
