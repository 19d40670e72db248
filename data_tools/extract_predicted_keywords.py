"""Door to ``sap2 data extract_predicted_keywords`` (:mod:`sap2.data.extract_predicted_keywords`)."""

from sap2.data.extract_predicted_keywords import main

if __name__ == "__main__":
    main()
