"""One class of distributions per factorising family, made from its metadata: `distribution_class("gamma")` is
`badmm.Gamma`."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import badmm_kernels
from badmm.families.factorised import Factorised, signature
from badmm.families.mixture import Mixture


def class_name(family: str) -> str:
    """The name of a family's class: "inverse_gaussian" is InverseGaussian."""
    return "".join(part.capitalize() for part in family.split("_"))


def distribution_class(family: str | ModuleType) -> type[Factorised]:
    """The class of a factorising family's distributions, from its name, its file of kernels or their namespace."""
    return _class_of(badmm_kernels.load(family))


@cache
def _class_of(ns: ModuleType) -> type[Factorised]:
    arguments = ", ".join((*ns.STANDARD, *ns.FIXED))
    name = class_name(ns.NAME)
    text = f"{name}({arguments}): independent coordinates θ of the {ns.NAME} family.\n\n{Factorised.__doc__}"
    body = {"ns": ns, "__doc__": text, "__module__": "badmm", "__signature__": signature(ns)}
    if len(ns.VARIABLES) == 1:
        return type(name, (Factorised,), body)
    return type(name, (Mixture,), body | {"__doc__": text.replace(str(Factorised.__doc__), str(Mixture.__doc__))})
