"""``python -m dicom_node``: the same as ``dicom-node``."""

from dicom_node.cli.main import app

if __name__ == "__main__":
    app()
