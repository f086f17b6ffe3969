"""Direct phase retrieval: pictures from patterns in one read, without iteration (`jp.direct`).

Quantities are processors over blocks of patterns (`processor.over`). The bright field is kept
(`bright_field`), placed on a grid and transformed over the scan (`placement`), and compared with
the transfer Γ(k, Q) of a weak phase by the lens (`transfer`).
"""

from .bright_field import (
    BrightField,
    BrightFieldStack,
    bright_field_of,
    scan_transform,
    transform_chunks,
)
from .placement import AbstractPlacement, place
from .processor import AbstractProcessor, Block, over, read_blocks
from .scan_grid import ScanGrid, fit_grid
from .transfer import Optics, displacement, phase_contrast, pupil, transfer

__all__ = [
    "AbstractPlacement",
    "AbstractProcessor",
    "Block",
    "BrightField",
    "BrightFieldStack",
    "Optics",
    "ScanGrid",
    "bright_field_of",
    "displacement",
    "fit_grid",
    "over",
    "phase_contrast",
    "place",
    "pupil",
    "read_blocks",
    "scan_transform",
    "transfer",
    "transform_chunks",
]
