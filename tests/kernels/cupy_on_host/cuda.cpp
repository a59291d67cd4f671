// libcuda.so.1: the part of the CUDA runtime and driver that CuPy uses, on the devices of streams.h.
//
// A module is a shared library of host code, as nvrtc.cpp makes them; its image is a path.
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <cstdio>
#include <string>

#include "streams.h"

using namespace on_host;

namespace {

thread_local cudaError_t last_error = cudaSuccess;
cudaError_t said(cudaError_t error) { return last_error = error; }

struct Event {
    int device;
    Pending operation;
};

struct Function {
    int device;
    void (*launch)(const unsigned *grid, const unsigned *block, void **arguments);
    std::vector<std::size_t> sizes;  // of its arguments
};

struct Module {
    int device;
    void *library;
    std::map<std::string, Function> functions;
};

template <class T> T symbol(void *library, const std::string &name)
{
    return reinterpret_cast<T>(dlsym(library, name.c_str()));
}

}  // namespace

// ---- the runtime ---------------------------------------------------------------------------------------------------

extern "C" {

const char *cudaGetErrorName(cudaError_t error)
{
    static thread_local char text[32];
    std::snprintf(text, sizeof text, "cudaError %d", (int)error);
    return text;
}
const char *cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaDriverGetVersion(int *version) { return *version = CUDA_VERSION, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { return *version = CUDART_VERSION, cudaSuccess; }

cudaError_t cudaGetDevice(int *index) { return *index = current, cudaSuccess; }
cudaError_t cudaGetDeviceCount(int *count)
{
    *count = device_count();
    return said(*count ? cudaSuccess : cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int index)
{
    if (index < 0 || index >= device_count()) return said(cudaErrorInvalidDevice);
    current = index;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr which, int)
{
    switch (which) {
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrClockRate: *value = 5000000; break;  // kHz; five times clock64's ticks: busy kernels outlast busy machines
    case cudaDevAttrMultiProcessorCount: *value = 2; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 * 1024; break;
    default: *value = 0;
    }
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int)
{
    *properties = {};
    std::strcpy(properties->name, "the host");
    properties->major = 9;
    properties->multiProcessorCount = 2;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->sharedMemPerBlock = 48 * 1024;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char *text, int length, int index)
{
    std::snprintf(text, length, "0000:%02x:00.0", index);
    return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int *can, int, int) { return *can = 0, cudaSuccess; }
cudaError_t cudaDeviceSynchronize() { return wait_for_device(current), cudaSuccess; }

cudaError_t cudaMalloc(void **pointer, size_t size)
{
    return said((*pointer = allocate(size, false)) ? cudaSuccess : cudaErrorMemoryAllocation);
}
cudaError_t cudaHostAlloc(void **pointer, size_t size, unsigned)
{
    return said((*pointer = allocate(size, true)) ? cudaSuccess : cudaErrorMemoryAllocation);
}
cudaError_t cudaFree(void *pointer) { return release(pointer), cudaSuccess; }
cudaError_t cudaFreeHost(void *pointer) { return release(pointer), cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t *free, size_t *total) { return *free = *total = (size_t)8 << 30, cudaSuccess; }
cudaError_t cudaMemcpy(void *to, const void *from, size_t size, cudaMemcpyKind)
{
    return copy(to, from, size, stream_of(nullptr), true), cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, cudaMemcpyKind, cudaStream_t stream)
{
    return copy(to, from, size, stream_of(stream), false), cudaSuccess;
}
cudaError_t cudaMemset(void *to, int value, size_t size)
{
    return enqueue(stream_of(nullptr), [=] { std::memset(to, value, size); }), cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t size, cudaStream_t stream)
{
    return enqueue(stream_of(stream), [=] { std::memset(to, value, size); }), cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *pointer)
{
    *attributes = {};
    const Allocation *found = allocation_of(pointer);
    attributes->device = found ? found->device : -2;
    attributes->type = !found           ? cudaMemoryTypeUnregistered
                       : found->pinned ? cudaMemoryTypeHost
                                       : cudaMemoryTypeDevice;
    attributes->devicePointer = found ? (void *)pointer : nullptr;
    attributes->hostPointer = found && found->pinned ? (void *)pointer : nullptr;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    return *stream = (cudaStream_t)open_stream(!(flags & cudaStreamNonBlocking)), cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t *stream) { return cudaStreamCreateWithFlags(stream, 0); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int)
{
    return cudaStreamCreateWithFlags(stream, flags);
}
cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned *flags)
{
    return *flags = stream_of(stream)->blocking ? cudaStreamDefault : cudaStreamNonBlocking, cudaSuccess;
}
cudaError_t cudaStreamGetPriority(cudaStream_t, int *priority) { return *priority = 0, cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus *status)
{
    return *status = cudaStreamCaptureStatusNone, cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return close_stream(stream_of(stream)), cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    return wait_for(enqueue(stream_of(stream), nullptr)), cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    return is_done(stream_of(stream)->last) ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    return enqueue(stream_of(stream), nullptr, ((Event *)event)->operation), cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *argument)
{
    return enqueue(stream_of(stream), [=] { function(argument); }), cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) { return *event = (cudaEvent_t) new Event{current, nullptr}, cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete (Event *)event, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    if (((Event *)event)->device != stream_of(stream)->device) return said(cudaErrorInvalidResourceHandle);
    return ((Event *)event)->operation = enqueue(stream_of(stream), nullptr), cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event)
{
    return is_done(((Event *)event)->operation) ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) { return wait_for(((Event *)event)->operation), cudaSuccess; }
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end)
{
    const Pending &from = ((Event *)start)->operation, &to = ((Event *)end)->operation;
    wait_for(from);
    wait_for(to);
    *milliseconds = std::chrono::duration<float, std::milli>(to->when - from->when).count();
    return cudaSuccess;
}
cudaError_t cudaProfilerStart() { return cudaSuccess; }
cudaError_t cudaProfilerStop() { return cudaSuccess; }

// ---- the driver: modules and launches ------------------------------------------------------------------------------

CUresult cuGetErrorName(CUresult error, const char **text)
{
    return *text = cudaGetErrorName((cudaError_t)error), CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult error, const char **text) { return cuGetErrorName(error, text); }
CUresult cuDriverGetVersion(int *version) { return *version = CUDA_VERSION, CUDA_SUCCESS; }

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    void *library = dlopen((const char *)image, RTLD_NOW | RTLD_LOCAL);
    if (!library) return std::fprintf(stderr, "%s\n", dlerror()), CUDA_ERROR_INVALID_IMAGE;
    return *module = (CUmodule) new Module{current, library, {}}, CUDA_SUCCESS;
}
CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }  // functions of it may be enqueued
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    Module &in = *(Module *)module;
    const auto launch = symbol<decltype(Function::launch)>(in.library, std::string("launch_") + name);
    if (!launch) return CUDA_ERROR_NOT_FOUND;
    const auto arguments = symbol<std::vector<std::size_t> (*)()>(in.library, std::string("arguments_") + name);
    return *function = (CUfunction) & (in.functions[name] = Function{in.device, launch, arguments()}), CUDA_SUCCESS;
}
CUresult cuFuncGetAttribute(int *value, CUfunction_attribute which, CUfunction)
{
    return *value = which == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : 0, CUDA_SUCCESS;
}
CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned x, unsigned y,
                        unsigned z, unsigned, CUstream stream, void **arguments, void **)
{
    const std::uint64_t threads = (std::uint64_t)x * y * z;
    if (!grid_x || !grid_y || !grid_z || grid_x > 0x7fffffff || grid_y > 65535 || grid_z > 65535 || !threads ||
        threads > 1024 || z > 64)
        return CUDA_ERROR_INVALID_VALUE;
    const Function called = *(Function *)function;
    if (called.device != current || stream_of(stream)->device != current) return CUDA_ERROR_INVALID_HANDLE;
    auto values = std::make_shared<std::vector<std::vector<std::uint64_t>>>();  // arguments are copied now
    for (std::size_t k = 0; k < called.sizes.size(); ++k) {
        values->emplace_back((called.sizes[k] + 7) / 8);
        std::memcpy(values->back().data(), arguments[k], called.sizes[k]);
    }
    enqueue(stream_of(stream), [=] {
        const unsigned grid[3] = {grid_x, grid_y, grid_z}, block[3] = {x, y, z};
        std::vector<void *> pointers;
        for (auto &value : *values) pointers.push_back(value.data());
        called.launch(grid, block, pointers.data());
    });
    return CUDA_SUCCESS;
}

}  // extern "C"
