"""For ``swift … --external_plugins <this file>``, where the automatic loading is off (``SAP2_AUTOLOAD=0``).

ms-swift has read its command line by then, so that the flags of SAP² are not there: settings go through
``--model_kwargs '{"sap_window_size": 2}'`` in training, and come from the checkpoint afterwards.
"""

from sap2._autoload import install

install(asked=True)
