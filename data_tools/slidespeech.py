"""Door to ``sap2 data slidespeech`` (:mod:`sap2.data.slidespeech`)."""

import functools
import sys

from sap2.commands.data import run_tool

main = functools.partial(run_tool, "slidespeech")

if __name__ == "__main__":
    sys.exit(main())
