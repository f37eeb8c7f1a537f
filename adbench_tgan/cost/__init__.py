"""What scoring costs, measured apart from any ranking: ``adbench bench``."""
