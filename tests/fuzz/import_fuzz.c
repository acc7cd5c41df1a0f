/* Fuzz: exposition text as it is imported, under limits that are soon reached. Byte 0 chooses: bit 0
 * OpenMetrics, the others which limits. Sent twice: the second time, when the series are known, gives the same
 * rows. */
#include "fuzz/fuzz_ingest.h"

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t len)
{
    if (len == 0)
        return 0;
    struct ingest_config config = ingest_config_default();
    config.limits.labels_per_series_max = at[0] & 2 ? 3 : 60;
    config.limits.name_bytes_max = at[0] & 4 ? 8 : 1024;
    config.limits.value_bytes_max = at[0] & 8 ? 8 : 4096;
    config.limits.samples_per_request_max = at[0] & 16 ? 4 : 1000000;
    config.limits.series_max = at[0] & 32 ? 3 : 0;
    config.limits.body_bytes_max = at[0] & 64 ? 50 : 0;
    fuzz_ingest(&config, FUZZ_TEXT, slice_str(at[0] & 1 ? "application/openmetrics-text; version=1.0.0" : ""),
                slice_of("", 0), slice_of(at + 1, len - 1));
    return 0;
}
