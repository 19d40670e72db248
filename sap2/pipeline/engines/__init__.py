"""What turns embedded prompts into replies. :mod:`sap2.pipeline.engines.base` says how another engine plugs in."""
