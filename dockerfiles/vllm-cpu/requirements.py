"""Print what a distribution requires on this machine, less what serving text on a CPU does without.

python requirements.py DISTRIBUTION [--only NAME]
"""

import sys
from importlib.metadata import requires

from pip._vendor.packaging.requirements import Requirement

LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec", "xgrammar"}


def main(distribution: str, only: str | None) -> None:
    for text in requires(distribution) or ():
        wanted = Requirement(text)
        chosen = wanted.name == only if only else wanted.name not in LEFT_OUT
        if chosen and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
            wanted.marker = None
            print(wanted)


main(sys.argv[1], sys.argv[3] if sys.argv[2:3] == ["--only"] else None)
