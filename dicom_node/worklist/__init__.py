"""The worklists of the PACS (MWL, UPS) and retrieval from it."""
