"""Door to ``sap2 data extract_predicted_keywords`` (:mod:`sap2.data.extract_predicted_keywords`)."""

import functools
import sys

from sap2.commands.data import run_tool

main = functools.partial(run_tool, "extract_predicted_keywords")

if __name__ == "__main__":
    sys.exit(main())
