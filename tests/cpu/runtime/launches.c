/* What tests/cpu/host/cuda.c lacks of a driver for empty launches; a stream is busy now and then. */
#include <stdlib.h>
#include <string.h>

#define WEAK __attribute__((weak))
static int launches;
static int fails(const char *name) {
    const char *wanted = getenv("STUB_FAIL");
    return wanted && !strcmp(wanted, name) ? 2 : 0;
}
WEAK int cuCtxSynchronize(void) { return fails("cuCtxSynchronize"); }
WEAK int cuStreamBeginCapture_v2(void *stream, int mode) { return fails("cuStreamBeginCapture_v2"); }
WEAK int cuStreamEndCapture(void *stream, void **graph) { *graph = &launches; return 0; }
WEAK int cuGraphInstantiateWithFlags(void **ready, void *graph, unsigned long long flags)
{ *ready = graph; return graph == &launches ? 0 : 1; }
WEAK int cuGraphLaunch(void *ready, void *stream)
{ return ready != &launches ? 1 : ++launches > 100 ? fails("cuGraphLaunch") : 0; }
WEAK int cuLaunchKernelEx(const unsigned *config, void *f, void **parameters, void **extra)
{
    for (int i = 0; i < 6; i++) if (config[i] != 1) return 1;
    return f && !parameters && !extra ? fails("cuLaunchKernelEx") : 1;
}
