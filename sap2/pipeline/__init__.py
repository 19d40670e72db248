"""Both stages of SAP² in one process: pick the spoken keywords, then transcribe with them."""
