#!/bin/sh
# Installs what the tests of firmware, of hardware and of the page of results need (compilers,
# emulators, a simulator of Verilog, standard cells, a browser), where that is allowed: as root, or
# with sudo that asks for no password, on a system with apt-get. Anywhere else, or without a network, it says what is missing and that those tests will be
# skipped; with CI set to something, it fails instead.
# Exit status: 0 all is there, 3 something is missing, 1 the same in CI.
set -u

# command, and the Debian package that has it
TOOLS="riscv64-unknown-elf-gcc gcc-riscv64-unknown-elf
arm-none-eabi-gcc gcc-arm-none-eabi
qemu-system-riscv64 qemu-system-misc
qemu-system-riscv32 qemu-system-misc
qemu-system-arm qemu-system-arm
clang-19 clang-19
ld.lld-19 lld-19
dtc device-tree-compiler
chromium chromium
iverilog iverilog
g++ g++"
# file, and the package that has it
FILES="/usr/share/qflow/tech/osu018/osu018_stdcells.lib qflow-tech-osu018"
# compiler, and the package with its C library
LIBRARIES="riscv64-unknown-elf-gcc picolibc-riscv64-unknown-elf
arm-none-eabi-gcc libnewlib-arm-none-eabi"

# prints the packages that are missing, one a line
missing() {
    echo "$TOOLS" | while read -r command package; do
        command -v "$command" >/dev/null 2>&1 || echo "$package"
    done
    echo "$FILES" | while read -r file package; do
        test -e "$file" || echo "$package"
    done
    echo "$LIBRARIES" | while read -r compiler package; do
        flags=
        case $compiler in riscv64-*) flags=--specs=picolibc.specs ;; esac
        echo '#include <string.h>' | "$compiler" $flags -E -x c -o /dev/null - >/dev/null 2>&1 ||
            echo "$package"
    done
}

wanted=$(missing | sort -u | tr '\n' ' ')
[ -z "$wanted" ] && exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
    as_root="sudo -n"
    sudo -n true >/dev/null 2>&1 || as_root=none
fi
if command -v apt-get >/dev/null 2>&1 && [ "$as_root" != none ]; then
    echo "installing $wanted"
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    # one that this distribution does not have must not keep the others away
    known=
    for package in $wanted; do
        apt-cache show "$package" >/dev/null 2>&1 && known="$known $package"
    done
    [ -z "$known" ] || $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends \
        -o DPkg::Lock::Timeout=120 $known >/dev/null
    wanted=$(missing | sort -u | tr '\n' ' ')
    [ -z "$wanted" ] && exit 0
fi

case ${CI:-} in
'' | 0 | false | no)
    echo "the tests that need these will be skipped; on Debian and Ubuntu: apt-get install $wanted"
    exit 3
    ;;
*)
    echo "in CI every test must run, and these are missing: $wanted" >&2
    exit 1
    ;;
esac
