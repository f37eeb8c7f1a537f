"""TransGAN: its two transformers, its augmentation, and the detectors built on them."""
