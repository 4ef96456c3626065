/* A driver's library with one GPU, for machines that have none; loaded by test_nvml.py instead of
 * libnvidia-ml.so.1. What is not here is a function that an older driver lacks. */
#include <stdint.h>
#include <string.h>

enum { OK = 0, NOT_SUPPORTED = 3 };
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } Pci;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Utilisation;

#define GIVES(function, type, value) \
    int function(void *gpu, type *out) { (void)gpu; *out = (value); return OK; }
#define OF_CLOCK(function, sm, memory) \
    int function(void *gpu, int clock, unsigned *out) \
    { (void)gpu; *out = clock == 1 ? (sm) : clock == 2 ? (memory) : 0; return OK; }
#define NOW_AND_NEXT(function, value) \
    int function(void *gpu, unsigned *now, unsigned *next) \
    { (void)gpu; *now = (value); *next = !(value); return OK; }

static unsigned open_count;

int nvmlInitWithFlags(unsigned flags) { (void)flags; open_count++; return OK; }
int nvmlShutdown(void) { open_count--; return OK; }
unsigned stub_open(void) { return open_count; }
const char *nvmlErrorString(int code) { return code == NOT_SUPPORTED ? "Not Supported" : "?"; }
int nvmlSystemGetDriverVersion(char *out, unsigned n) { strncpy(out, "580.95.05", n); return OK; }
int nvmlDeviceGetCount_v2(unsigned *out) { *out = 1; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **out) { *out = &open_count + i; return OK; }
int nvmlDeviceGetName(void *gpu, char *out, unsigned n)
{ (void)gpu; strncpy(out, "NVIDIA H100 80GB HBM3", n); return OK; }
int nvmlDeviceGetPciInfo_v3(void *gpu, Pci *out)
{ (void)gpu; memset(out, 0, sizeof *out); strcpy(out->bus_id, "00000000:3B:00.0"); return OK; }
int nvmlDeviceGetMemoryInfo(void *gpu, Memory *out)
{ (void)gpu; out->total = 80ULL << 30; out->used = 3ULL << 30; out->free = 0; return OK; }
int nvmlDeviceGetUtilizationRates(void *gpu, Utilisation *out)
{ (void)gpu; out->gpu = 97; out->memory = 1; return OK; }
OF_CLOCK(nvmlDeviceGetClockInfo, 1755, 2619)
OF_CLOCK(nvmlDeviceGetMaxClockInfo, 1980, 2619)
GIVES(nvmlDeviceGetPowerUsage, unsigned, 151500)
GIVES(nvmlDeviceGetEnforcedPowerLimit, unsigned, 600000)
GIVES(nvmlDeviceGetPowerManagementDefaultLimit, unsigned, 700000)
int nvmlDeviceGetTemperature(void *gpu, int sensor, unsigned *out)
{ (void)gpu; *out = sensor == 0 ? 54 : 0; return OK; }
GIVES(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, 0x4 | 0x20)
GIVES(nvmlDeviceGetPersistenceMode, int, 1)
GIVES(nvmlDeviceGetComputeMode, int, 3)
NOW_AND_NEXT(nvmlDeviceGetMigMode, 0)
int nvmlDeviceGetEccMode(void *gpu, unsigned *now, unsigned *next)
{ (void)gpu; (void)now; (void)next; return NOT_SUPPORTED; }
GIVES(nvmlDeviceGetCurrPcieLinkGeneration, unsigned, 5)
GIVES(nvmlDeviceGetMaxPcieLinkGeneration, unsigned, 5)
GIVES(nvmlDeviceGetCurrPcieLinkWidth, unsigned, 16)
