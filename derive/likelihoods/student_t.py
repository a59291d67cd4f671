"""Student-t with ν degrees of freedom and scale s: f = ½(ν + 1) log(1 + ((y − a)/s)²/ν) + constants; not convex."""

import sympy as sp

from ..calculus.likelihood import Likelihood, Parameter, Response

a, y = sp.symbols("a y", real=True)
nu, s = sp.symbols("nu s", positive=True)

LIKELIHOOD = Likelihood(
    name="student_t",
    title="Student-t regression",
    citation="Lange, Little & Taylor, Robust statistical modeling using the t distribution, JASA 1989",
    predictor=a,
    responses=(Response("y", y, "real"),),
    loss=(nu + 1) / 2 * sp.log(1 + (y - a) ** 2 / (nu * s**2))
    + sp.log(nu * sp.pi * s**2) / 2
    + sp.loggamma(nu / 2)
    - sp.loggamma((nu + 1) / 2),
    parameters=(
        Parameter("degrees_of_freedom", nu, "degrees of freedom"),
        Parameter("scale", s, "scale of y around a"),
    ),
)
