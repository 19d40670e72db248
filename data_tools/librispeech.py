"""Door to ``sap2 data librispeech`` (:mod:`sap2.data.librispeech`)."""

from sap2.data.librispeech import main

if __name__ == "__main__":
    main()
