/* A CUDA driver with one GPU that copies and runs one kernel, for machines that have none; loaded
 * by test_cuda_driver.py and test_tensorrt_kernel.py instead of libcuda.so.1. The function that
 * STUB_FAIL names fails; every function wants the context in the thread that calls it; what was
 * allocated is counted. The GPU's memory is ours, and what is launched has run when it returns. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long u64;
enum { OK = 0, OUT_OF_MEMORY = 2, NO_CONTEXT = 201, BUSY = 600 };
static _Thread_local void *context;
static int held[6]; /* allocations, modules, registered, imported, pinned, graphs */
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
FREE(cuDeviceGetName, (char *out, int n, int device), (void)device; strncpy(out, "NVIDIA stub", n))
FREE(cuDeviceGetAttribute, (int *out, int what, int device),
     (void)device; *out = what == 75 ? 9 : what == 76 ? 0 : 132)
CALL(cuMemAlloc_v2, (u64 *out, size_t size), *out = (u64)malloc(size); held[0]++)
CALL(cuMemFree_v2, (u64 at), free((void *)at); held[0]--)
CALL(cuMemcpyHtoD_v2, (u64 to, const void *from, size_t size), memcpy((void *)to, from, size))
CALL(cuMemsetD32_v2, (u64 to, unsigned word, size_t n), for (size_t i = 0; i < n; i++) ((unsigned *)to)[i] = word)
CALL(cuMemHostRegister_v2, (void *at, size_t size, unsigned flags), (void)at; (void)size; held[2] += flags == 3)
CALL(cuMemHostGetDevicePointer_v2, (u64 *out, void *at, unsigned flags), (void)flags; *out = (u64)at)
CALL(cuMemHostUnregister, (void *at), (void)at; held[2]--)
CALL(cuModuleLoadData, (void **out, const char *image), *out = (void *)image; held[1]++)
CALL(cuModuleGetFunction, (void **out, void *module, const char *name), (void)module; *out = strdup(name))
CALL(cuFuncSetAttribute, (void *f, int what, int value), (void)f; (void)what; (void)value)
CALL(cuModuleUnload, (void *module), (void)module; held[1]--)
CALL(cuImportExternalMemory, (void **out, const char *handle),
     *out = &held[3]; held[3]++; (void)handle)
CALL(cuExternalMemoryGetMappedBuffer, (u64 *out, void *memory, const u64 *part),
     (void)memory; *out = (u64)malloc(part[1]); held[0]++)
CALL(cuDestroyExternalMemory, (void *memory), (void)memory; held[3]--)

/* What was launched: done at once, or kept while a stream is being recorded. */
struct step { int kind; u64 a, b, c; void (*call)(long); long argument; u64 given[5]; };
struct graph { int count; struct step steps[64]; };
static struct graph *recording;
static void run(const struct step *s) {
    if (s->kind == 0) memcpy((void *)s->a, (const void *)s->b, s->c);
    else if (s->kind == 1) s->call(s->argument);
    else if (!getenv("STUB_NO_STAMP")) { /* hand_over: outputs, values, stamp, counter, how many */
        memcpy((void *)s->given[1], (void *)s->given[0], 4 * (unsigned)s->given[4]);
        *(unsigned *)s->given[2] = ++*(unsigned *)s->given[3];
    }
}
static void push(struct step s) {
    if (recording) recording->steps[recording->count++] = s; else run(&s);
}
static void copy(u64 to, u64 from, size_t n) { push((struct step){.kind = 0, .a = to, .b = from, .c = n}); }
int stub_is_recording(void) { return recording != NULL; }
void stub_enqueue(void (*call)(long), long argument)
{ push((struct step){.kind = 1, .call = call, .argument = argument}); }
CALL(cuLaunchKernel, (void *f, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz,
     unsigned shared, void *stream, void **parameters, void **extra),
     (void)x; (void)y; (void)z; (void)bx; (void)by; (void)bz; (void)shared; (void)stream; (void)extra;
     struct step s = {.kind = 2}; memcpy(s.given, parameters[0], 40);
     if (!strcmp(f, "hand_over")) push(s))
CALL(cuMemcpyDtoH_v2, (void *to, u64 from, size_t size), memcpy(to, (void *)from, size))
CALL(cuMemcpyHtoDAsync_v2, (u64 to, void *from, size_t n, void *stream), (void)stream; copy(to, (u64)from, n))
CALL(cuMemcpyDtoHAsync_v2, (void *to, u64 from, size_t n, void *stream), (void)stream; copy((u64)to, from, n))
CALL(cuMemcpyDtoDAsync_v2, (u64 to, u64 from, size_t n, void *stream), (void)stream; copy(to, from, n))
CALL(cuMemHostAlloc, (void **out, size_t size, unsigned flags), *out = malloc(size); held[4] += flags == 3)
CALL(cuMemFreeHost, (void *at), free(at); held[4]--)
CALL(cuStreamBeginCapture_v2, (void *stream, int mode),
     (void)stream; (void)mode; recording = calloc(1, sizeof *recording); held[5]++)
int cuStreamEndCapture(void *stream, void **out) {
    int code = check("cuStreamEndCapture");
    (void)stream; *out = code ? NULL : recording;
    if (code) { free(recording); held[5]--; }
    recording = NULL; /* it ends, whatever it says of it */
    return code;
}
CALL(cuGraphGetNodes, (struct graph *graph, void *nodes, size_t *out), (void)nodes; *out = graph->count)
CALL(cuGraphInstantiateWithFlags, (void **out, void *graph, u64 flags), *out = graph; (void)flags; held[5]++)
CALL(cuGraphUpload, (void *graph, void *stream), (void)graph; (void)stream)
CALL(cuGraphLaunch, (struct graph *graph, void *stream),
     (void)stream; for (int i = 0; i < graph->count; i++) run(&graph->steps[i]))
CALL(cuGraphExecDestroy, (void *graph), (void)graph; held[5]--)
CALL(cuGraphDestroy, (void *graph), free(graph); held[5]--)
int cuDriverGetVersion(int *out) { *out = 13000; return OK; }
int cuDeviceGetCount(int *out) { *out = 1; return OK; }
CALL(cuStreamQuery, (void *stream), (void)stream; if (getenv("STUB_BUSY")) return BUSY)
CALL(cuCtxSynchronize, (void), (void)0)
CALL(cuStreamSynchronize, (void *stream), (void)stream)
