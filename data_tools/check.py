"""Door to ``sap2 data check`` (:mod:`sap2.data.check`)."""

from sap2.data.check import main

if __name__ == "__main__":
    main()
