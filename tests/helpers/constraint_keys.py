"""Keys of the constraints that require some."""

CONSTRAINT_KEYS = {
    "gaussian_in_plane": {"sigma_angstrom": 0.6},
    "gaussian_along_z": {"sigma_angstrom": 6.0},
    "low_pass": {"cutoff_inverse_angstrom": 0.6},
    "missing_cone_filter": {"semiangle_mrad": 25.0},
    "support": {"blur_angstrom": 1.0},
    "low_pass_volume": {"cutoff_inverse_angstrom": 0.6},
    "atomicity": {"atoms": 5, "distance_angstrom": 1.0},
    "probe_aperture": {"semiangle_mrad": 25.0},
    "probe_support": {"radius_angstrom": 2.0},
    "shrinkage": {"threshold_rad": 0.1},
    "total_variation_step": {"weight_rad": 0.1},
    "butterworth": {"highest_inverse_angstrom": 0.6},
    "grid_artefact_removal": {
        "step_y_angstrom": 2.0,
        "step_x_angstrom": 2.0,
        "width_inverse_angstrom": 0.1,
    },
    "smooth_tilts": {"sigma_angstrom": 2.0},
    "smooth_weights": {"sigma_angstrom": 2.0},
}
