"""Door to ``sap2 data slidespeech`` (:mod:`sap2.data.slidespeech`)."""

from sap2.data.slidespeech import main

if __name__ == "__main__":
    main()
