"""Door to ``sap2 data talks`` (:mod:`sap2.data.talks`)."""

from sap2.data.talks import main

if __name__ == "__main__":
    main()
