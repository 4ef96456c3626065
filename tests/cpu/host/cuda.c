/* A CUDA driver with one GPU that runs nothing, for machines that have none; loaded by
 * test_cuda_driver.py instead of libcuda.so.1. The function that STUB_FAIL names fails; every
 * function wants the context in the thread that calls it; what was allocated is counted. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long u64;
enum { OK = 0, OUT_OF_MEMORY = 2, NO_CONTEXT = 201, BUSY = 600 };
static _Thread_local void *context;
static int held[4]; /* allocations, modules, registered, imported */
static int primary;

static int fails(const char *name) {
    const char *wanted = getenv("STUB_FAIL");
    return wanted && !strcmp(wanted, name) ? OUT_OF_MEMORY : OK;
}
static int check(const char *name) { return context != &primary ? NO_CONTEXT : fails(name); }
#define FREE(name, args, body) \
    int name args { int code = fails(#name); if (code) return code; body; return OK; }
#define CALL(name, args, body) \
    int name args { int code = check(#name); if (code) return code; body; return OK; }

int stub_held(int what) { return held[what]; }
int cuGetErrorName(int code, const char **out)
{ *out = code == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_INVALID_CONTEXT"; return OK; }
int cuGetErrorString(int code, const char **out)
{ *out = code == OUT_OF_MEMORY ? "out of memory" : "invalid device context"; return OK; }
FREE(cuInit, (unsigned flags), (void)flags)
FREE(cuDeviceGet, (int *out, int index), *out = index)
FREE(cuDevicePrimaryCtxRetain, (void **out, int device), (void)device; *out = &primary)
FREE(cuCtxSetCurrent, (void *it), context = it)
CALL(cuStreamCreate, (void **out, unsigned flags), *out = &held; (void)flags)
CALL(cuDeviceGetName, (char *out, int n, int device), (void)device; strncpy(out, "NVIDIA stub", n))
CALL(cuDeviceGetAttribute, (int *out, int what, int device),
     (void)device; *out = what == 75 ? 9 : what == 76 ? 0 : 132)
CALL(cuMemAlloc_v2, (u64 *out, size_t size), *out = (u64)malloc(size); held[0]++)
CALL(cuMemFree_v2, (u64 at), free((void *)at); held[0]--)
CALL(cuMemcpyHtoD_v2, (u64 to, const void *from, size_t size), memcpy((void *)to, from, size))
CALL(cuMemsetD32_v2, (u64 to, unsigned word, size_t n), for (size_t i = 0; i < n; i++) ((unsigned *)to)[i] = word)
CALL(cuMemHostRegister_v2, (void *at, size_t size, unsigned flags), (void)at; (void)size; held[2] += flags == 3)
CALL(cuMemHostGetDevicePointer_v2, (u64 *out, void *at, unsigned flags), (void)flags; *out = (u64)at)
CALL(cuMemHostUnregister, (void *at), (void)at; held[2]--)
CALL(cuModuleLoadData, (void **out, const char *image), *out = (void *)image; held[1]++)
CALL(cuModuleGetFunction, (void **out, void *module, const char *name), (void)module; *out = (void *)name)
CALL(cuFuncSetAttribute, (void *f, int what, int value), (void)f; (void)what; (void)value)
CALL(cuModuleUnload, (void *module), (void)module; held[1]--)
CALL(cuImportExternalMemory, (void **out, const char *handle),
     *out = &held[3]; held[3]++; (void)handle)
CALL(cuExternalMemoryGetMappedBuffer, (u64 *out, void *memory, const u64 *part),
     (void)memory; *out = (u64)malloc(part[1]); held[0]++)
CALL(cuDestroyExternalMemory, (void *memory), (void)memory; held[3]--)
CALL(cuLaunchKernel, (void *f, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz,
     unsigned shared, void *stream, void **parameters, void **extra),
     (void)f; (void)x; (void)y; (void)z; (void)bx; (void)by; (void)bz; (void)shared; (void)stream; (void)parameters; (void)extra)
CALL(cuStreamQuery, (void *stream), (void)stream; if (getenv("STUB_BUSY")) return BUSY)
CALL(cuStreamSynchronize, (void *stream), (void)stream)
