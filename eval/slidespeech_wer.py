"""Score transcripts: ``python eval/slidespeech_wer.py --input_file result.jsonl``, the same as ``sap2 score``."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # sap2 beside this folder, where it is not installed

from sap2.scoring.command import main

if __name__ == "__main__":
    sys.exit(main())
