"""Generated H&E-like slides with known truth: stains, scanners, tissue, artefacts."""

from exaone_prep.phantom.corpus import PhantomSettings, PhantomSlide, write_phantoms

__all__ = ["PhantomSettings", "PhantomSlide", "write_phantoms"]
