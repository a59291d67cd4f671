"""The planted errors: signs, factors, swapped arguments, wrong indices and dropped terms, in every family."""

from __future__ import annotations

from tests.kernels.mutants import Mutant

ISOTROPIC, DIAGONAL, FULL, GAMMA = "isotropic_gaussian", "diagonal_gaussian", "full_gaussian", "gamma"
IVON = "ivon"
BETA, IG, INVERSE_GAMMA, LOG_NORMAL = "beta", "inverse_gaussian", "inverse_gamma", "log_normal"
BERNOULLI, BINOMIAL, GEOMETRIC, NEGATIVE_BINOMIAL = "bernoulli", "binomial", "geometric", "negative_binomial"
LAPLACE, POISSON, WEIBULL = "laplace", "poisson", "weibull"

MUTANTS = (
    # The ADMM lines are generated for every family; each family gets different errors in them.
    Mutant("isotropic: dual steps away from the server", ISOTROPIC, "_dual_update_f64", "swap"),
    Mutant("isotropic: dual forgets itself", ISOTROPIC, "_dual_update_f32", "drop addend"),
    Mutant("isotropic: client map with the dual's sign", ISOTROPIC, "_client_map_f64", "sign"),
    Mutant("isotropic: server adds the duals", ISOTROPIC, "_server_contribution_f64", "unsign", -1),
    Mutant("isotropic: server total reads one client's coordinate for all", ISOTROPIC, "_server_total_f64", "index"),
    Mutant("isotropic: prior and total exchanged", ISOTROPIC, "_server_update_f64", "swap addend"),
    Mutant("isotropic: mean squared instead of scaled", ISOTROPIC, "_natural_from_standard_f64", "use", 0, "u0", "m"),
    Mutant("isotropic: KL without the half", ISOTROPIC, "_kl_f64", "factor"),
    Mutant("isotropic: KL of the sum of the means", ISOTROPIC, "_kl_f64", "sign"),
    Mutant("isotropic: log-partition doubled", ISOTROPIC, "_log_partition_f64", "factor"),
    Mutant("isotropic: entropy's constant doubled", ISOTROPIC, "_ENTROPY", "factor"),
    Mutant("isotropic: penalty not inverted", ISOTROPIC, "_CLIENT_MAP", "swap"),
    Mutant("isotropic: fused dual steps away from the server", ISOTROPIC, "_round_update_f64", "swap"),
    Mutant(
        "isotropic: fused server line reads the old dual", ISOTROPIC, "_round_update_f32", "use", -1, "eta_new", "eta"
    ),
    # Diagonal Gaussian.
    Mutant("diagonal: natural gradient with + H m", DIAGONAL, "_natural_gradient_f64", "unsign"),
    Mutant("diagonal: natural gradient without H m", DIAGONAL, "_natural_gradient_f64", "drop product"),
    Mutant("diagonal: natural gradient's curvature positive", DIAGONAL, "_natural_gradient_f64", "unsign", 1),
    Mutant(
        "diagonal: mean instead of precision-times-mean", DIAGONAL, "_natural_from_standard_f64", "use", 0, "S", "m"
    ),
    Mutant(
        "diagonal: second moment without the squared mean", DIAGONAL, "_expectation_from_natural_f64", "drop product", 1
    ),
    Mutant("diagonal: variance with twice its weight", DIAGONAL, "_expectation_from_natural_f64", "factor", -1),
    Mutant("diagonal: second moment taken four times", DIAGONAL, "_natural_from_expectation_f64", "factor"),
    Mutant(
        "diagonal: mean and precision read at the first coordinate", DIAGONAL, "_standard_from_natural_f64", "index", 1
    ),
    Mutant("diagonal: KL's mean term inverted", DIAGONAL, "_kl_f64", "swap", 1),
    Mutant("diagonal: KL with the other precision", DIAGONAL, "_kl_f64", "use", 0, "S_q", "S_p"),
    Mutant("diagonal: KL's first constant doubled", DIAGONAL, "_kl_f32", "factor"),
    Mutant("diagonal: entropy grows with precision", DIAGONAL, "_entropy_f64", "sign"),
    Mutant("diagonal: log-partition without log-determinant", DIAGONAL, "_log_partition_f64", "drop"),
    Mutant("diagonal: server drops the duals", DIAGONAL, "_server_contribution_f64", "drop addend", -1),
    Mutant(
        "diagonal: penalty squared in the place of penalty times damping",
        DIAGONAL,
        "_DUAL_UPDATE",
        "use",
        0,
        "gamma",
        "rho",
    ),
    # Full Gaussian.
    Mutant("full: covariance with the mean's sign", FULL, "_natural_from_expectation_one", "sign"),
    Mutant("full: covariance not halved", FULL, "_expectation_from_natural_one", "factor"),
    Mutant("full: second moments without the outer product", FULL, "_expectation_from_natural_one", "drop"),
    Mutant("full: natural gradient with + H m", FULL, "_natural_gradient_one", "sign"),
    Mutant("full: natural gradient without g", FULL, "_natural_gradient_one", "drop"),
    Mutant("full: quadratic form of the wrong vector", FULL, "_log_partition_one", "use", 0, "w", "xi"),
    Mutant("full: log-partition with + log-determinant", FULL, "_log_partition_one", "sign"),
    Mutant("full: entropy without log-determinant", FULL, "_entropy_one", "drop"),
    Mutant("full: KL whitened by the wrong factor", FULL, "_kl_one", "use", 0, "L_q", "L_p"),
    Mutant("full: KL's difference of precisions reversed", FULL, "_kl_one", "swap"),
    Mutant("full: KL without the mean term", FULL, "_kl_one", "drop", -1),
    Mutant("full: dual steps away from the server", FULL, "_dual_update_f64", "swap"),
    Mutant("full: client map with the first coordinate's dual", FULL, "_client_map_f64", "index", 1),
    Mutant("full: prior's weight forgotten", FULL, "_server_update_f64", "drop product"),
    # Gamma.
    Mutant("gamma: expectation of log with + log rate", GAMMA, "_expectation_from_natural_f64", "sign"),
    Mutant("gamma: mean inverted", GAMMA, "_expectation_from_natural_f64", "swap", 1),
    Mutant("gamma: digamma's shift with the wrong sign", GAMMA, "digamma", "sign", -1),
    Mutant("gamma: digamma without its last term", GAMMA, "digamma", "drop"),
    Mutant("gamma: trigamma without its first term", GAMMA, "trigamma", "drop"),
    Mutant("gamma: a coefficient of lgamma's series doubled", GAMMA, "lgamma", "factor", 29),
    Mutant("gamma: inverse map with + mean log", GAMMA, "_natural_from_expectation_f64", "sign"),
    Mutant("gamma: rate with the wrong sign", GAMMA, "_natural_from_expectation_f64", "unsign", 1),
    Mutant("gamma: natural gradient without the rate's derivative", GAMMA, "_natural_gradient_f64", "drop addend"),
    Mutant("gamma: natural gradient reads the first shape for all", GAMMA, "_natural_gradient_f64", "index"),
    Mutant("gamma: natural gradient's quotient inverted", GAMMA, "_natural_gradient_f64", "swap", 1),
    Mutant("gamma: KL's shapes exchanged", GAMMA, "_kl_f64", "use", 2, "a_p", "a_q"),
    Mutant("gamma: KL without the rate term", GAMMA, "_kl_f64", "drop product", 2),
    Mutant("gamma: entropy with - log shape", GAMMA, "_entropy_f64", "sign", 2),
    Mutant("gamma: log-partition with + shape log rate", GAMMA, "_log_partition_f64", "unsign"),
    Mutant("gamma: dual's difference a sum", GAMMA, "_dual_update_f64", "sign"),
    Mutant("gamma: a quadrature weight of KL doubled", GAMMA, "stirling_bregman", "factor", 3),
    # Families of one parameter, and those derived from rules that the four above do not need.
    Mutant("bernoulli: entropy with - x / (1 + e^-x)", BERNOULLI, "_entropy_f64", "unsign"),
    Mutant("bernoulli: softplus without its logarithm", BERNOULLI, "softplus", "drop"),
    Mutant("bernoulli: a quadrature weight of KL doubled", BERNOULLI, "softplus_bregman", "factor", 5),
    Mutant("beta: digammas added", BETA, "_expectation_from_natural_f64", "sign"),
    Mutant("beta: inverse map with the wrong remainder", BETA, "_natural_from_expectation_f64", "sign"),
    Mutant("beta: KL without the total's divergence", BETA, "_kl_f64", "drop", 2),
    Mutant("beta: log-partition with the first count twice", BETA, "_log_partition_f64", "use", 1, "b", "a"),
    Mutant("binomial: inverse map of the odds' sum", BINOMIAL, "_natural_from_expectation_f64", "sign"),
    Mutant("binomial: log-density without log theta!", BINOMIAL, "_log_density_f64", "drop"),
    Mutant("binomial: trials squared", BINOMIAL, "_NATURAL_GRADIENT", "swap"),
    Mutant("geometric: mean inverted", GEOMETRIC, "_standard_from_natural_f64", "swap"),
    Mutant("geometric: mean of the wrong sign", GEOMETRIC, "_expectation_from_natural_f64", "unsign"),
    Mutant("geometric: KL far away with the wrong sign", GEOMETRIC, "escape_bregman", "sign", -1),
    Mutant("inverse gamma: expectation with + log scale", INVERSE_GAMMA, "_expectation_from_natural_f64", "sign"),
    Mutant("inverse gamma: mean reciprocal inverted", INVERSE_GAMMA, "_expectation_from_natural_f64", "swap", 1),
    Mutant("inverse gamma: entropy's logarithm with the wrong sign", INVERSE_GAMMA, "_entropy_f64", "sign"),
    Mutant("inverse Gaussian: KL's first constant doubled", IG, "_kl_f64", "factor"),
    Mutant("inverse Gaussian: mean reciprocal without the mean", IG, "_expectation_from_natural_f64", "drop"),
    Mutant("inverse Gaussian: mean inverted", IG, "_standard_from_natural_f64", "swap"),
    Mutant("laplace: mean deviation inverted", LAPLACE, "_expectation_from_natural_f64", "swap"),
    Mutant("laplace: distance from minus the location", LAPLACE, "_log_density_f64", "sign", -1),
    Mutant("laplace: entropy's constant doubled", LAPLACE, "_entropy_f64", "factor"),
    Mutant("log-normal: mean inverted", LOG_NORMAL, "_standard_from_natural_f64", "swap"),
    Mutant("log-normal: mean square without it", LOG_NORMAL, "_expectation_from_natural_f64", "drop product", 1),
    Mutant("log-normal: KL's mean term inverted", LOG_NORMAL, "_kl_f64", "swap", 1),
    Mutant("negative binomial: rate of the inverse odds", NEGATIVE_BINOMIAL, "_natural_from_standard_f64", "swap"),
    Mutant("negative binomial: log-density without the size", NEGATIVE_BINOMIAL, "_log_density_f64", "drop"),
    Mutant("negative binomial: 1 + e^-x", NEGATIVE_BINOMIAL, "log_one_minus_exp", "unsign"),
    Mutant("poisson: log-density without its product", POISSON, "_log_density_f64", "drop product"),
    Mutant("poisson: a quadrature weight of KL doubled", POISSON, "exp_bregman", "factor", 5),
    Mutant("poisson: KL far away with the wrong sign", POISSON, "exp_bregman", "unsign"),
    Mutant("weibull: mean power of the wrong sign", WEIBULL, "_expectation_from_natural_f64", "unsign"),
    Mutant("weibull: natural gradient climbs", WEIBULL, "_natural_gradient_f64", "unsign"),
    Mutant("weibull: entropy's sign", WEIBULL, "_entropy_f64", "sign"),
    # IVON.
    Mutant("ivon: curvature without the cavity", IVON, "_update_f64", "drop addend"),
    Mutant("ivon: precision moves away from the curvature", IVON, "_update_sample_f32", "swap"),
    Mutant("ivon: retraction without the half", IVON, "_update_f64", "factor"),
    Mutant("ivon: retraction of first order", IVON, "_update_averaged_f64", "drop", 1),
    Mutant("ivon: momentum without its memory", IVON, "_update_sample_f64", "drop product", 2),
    Mutant("ivon: direction with + c_xi", IVON, "_update_f32", "unsign"),
    Mutant("ivon: mean climbs", IVON, "_update_averaged_squares_f64", "unsign", -1),
    Mutant("ivon: clip at the wrong radius", IVON, "_update_f64", "use", 1, "radius", "unbias"),
    Mutant("ivon: next sample of the old precision", IVON, "_update_sample_f64", "use", -1, "s_new", "s"),
    Mutant("ivon: next sample with the old normals", IVON, "_update_sample_f32", "use", -1, "eps_next", "eps"),
    Mutant("ivon: sample divides by the square root of ess twice", IVON, "_SAMPLE", "swap"),
    Mutant("ivon: every precision read at the first coordinate", IVON, "_sample_f64", "index", 1),
    Mutant("ivon: gradients subtracted", IVON, "_accumulate_squares_f32", "sign"),
    Mutant("ivon: 1 - beta1 negated", IVON, "_UPDATE", "swap"),
    Mutant("ivon: second Weyl constant forgotten", IVON, "_normals_f64", "drop", 4),
    Mutant("ivon: logarithm of two doubled", IVON, "_normals_f32", "factor", -12),
    Mutant("ivon: sine in the place of the cosine", IVON, "_normals_f64", "use", -1, "sin_0", "turned_0"),
    Mutant("ivon: blocks of a tile shifted", IVON, "_normals_f32", "sign"),
)
