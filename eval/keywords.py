"""Score stage one, the picking of keywords: ``python eval/keywords.py --input_file result.jsonl``."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # sap2 beside this folder, where it is not installed

from sap2.scoring.selection import main

if __name__ == "__main__":
    sys.exit(main())
