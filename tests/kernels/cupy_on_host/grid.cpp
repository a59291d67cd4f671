// libgrid.so: what runs a grid, once for all kernels. Compiled with each of them it is half of what a small one costs.
#define CUDA_ON_HOST_FUNCTION
#include "device.h"
