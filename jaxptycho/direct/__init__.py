"""Direct phase retrieval: pictures from patterns in one read, without iteration (`jp.direct`).

Quantities are processors over blocks of patterns (`processor.over`). The bright field is kept
(`bright_field`), placed on a grid and transformed over the scan (`placement`), and compared with
the transfer Γ(k, Q) of a weak phase by the lens (`transfer`).
"""

from .bright_field import (
    BrightField,
    BrightFieldStack,
    bright_field_of,
    in_squares,
    modulation,
    scan_transform,
    transform_chunks,
)
from .centre_of_mass import CentreOfMass, integrated_centre_of_mass
from .dark_field import fused, shot_halves, tilt_corrected_dark_field
from .image import DirectImage
from .moments import Moments
from .montage import montage_grid
from .parallax import Parallax, deposited_parallax, parallax
from .placement import AbstractPlacement, place
from .processor import AbstractProcessor, Block, over, read_blocks
from .scan_grid import ScanGrid, fit_grid
from .transfer import Optics, aligned_transfer, displacement, pupil, transfer
from .virtual_detector import VirtualDetector, ring_segments, virtual_image
from .weak_phase import matched_filter, optimum_bright_field, sideband_sums, single_sideband
from .wigner import wigner_deconvolution

__all__ = [
    "AbstractPlacement",
    "AbstractProcessor",
    "Block",
    "BrightField",
    "BrightFieldStack",
    "CentreOfMass",
    "DirectImage",
    "Moments",
    "Optics",
    "Parallax",
    "ScanGrid",
    "VirtualDetector",
    "aligned_transfer",
    "bright_field_of",
    "deposited_parallax",
    "displacement",
    "fit_grid",
    "fused",
    "in_squares",
    "integrated_centre_of_mass",
    "matched_filter",
    "modulation",
    "montage_grid",
    "optimum_bright_field",
    "over",
    "parallax",
    "place",
    "pupil",
    "read_blocks",
    "ring_segments",
    "scan_transform",
    "shot_halves",
    "sideband_sums",
    "single_sideband",
    "tilt_corrected_dark_field",
    "transfer",
    "transform_chunks",
    "virtual_image",
    "wigner_deconvolution",
]
