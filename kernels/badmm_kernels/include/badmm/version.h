/* badmm/version.h: the version of the kernels, and of the interface of a shared library built from them.
 *
 * BADMM_KERNELS_ABI grows when a function of badmm_kernels.c changes its arguments or goes; the soname holds it. */
#ifndef BADMM_VERSION_H
#define BADMM_VERSION_H

#define BADMM_KERNELS_VERSION "0.1.0"
#define BADMM_KERNELS_ABI 0

#endif /* BADMM_VERSION_H */
