/* Bytes and nanoseconds a value of the column codecs, on data like node_exporter's: constants, counters at rest,
 * integer counters, seconds with two decimals, full precision, pages, gauges, buckets. Not part of any test run.
 * Usage: bench_codec [series [values]]. */
#include "codec/float.h"

#include "data.h"

#include <stdio.h>
#include <stdlib.h>

enum { KIND_COUNT = DATA_BUCKET + 1 };
static const char *const KIND_NAMES[KIND_COUNT] = {
    "constant", "zero",     "integer counter", "seconds .01", "full counter",
    "pages",    "gauge .1", "full gauge",      "bucket",
};

int main(int argc, char **argv)
{
    size_t series = argc > 1 ? strtoul(argv[1], NULL, 10) : 200;
    size_t vectors = (argc > 2 ? strtoul(argv[2], NULL, 10) : 1536) / CODEC_VECTOR_COUNT_MAX;
    size_t total = series * vectors;
    uint64_t *in = calloc(total, CODEC_VECTOR_COUNT_MAX * 8);
    uint8_t *bytes = malloc(total * FLOAT_VECTOR_BYTES_MAX + CODEC_PAD_BYTES);
    if (in == NULL || bytes == NULL)
        return 1;
    printf("%-18s %6s %6s %9s %9s %9s %9s\n", "kind", "B fast", "B full", "enc fast", "enc full", "decode",
           "portable");
    for (unsigned kind = 0; kind < KIND_COUNT; kind++) {
        uint64_t state = kind, out[CODEC_VECTOR_COUNT_MAX];
        double ns[4], size[2];
        for (size_t s = 0; s < series; s++)
            data_fill(in + s * vectors * CODEC_VECTOR_COUNT_MAX, vectors * CODEC_VECTOR_COUNT_MAX, kind,
                      &state);
        for (int effort = CODEC_FAST; effort <= CODEC_FULL; effort++) {
            double from = now_ns();
            size_t at = 0;
            for (size_t v = 0; v < total; v++)
                at +=
                    float_encode(in + v * CODEC_VECTOR_COUNT_MAX, CODEC_VECTOR_COUNT_MAX, effort, bytes + at);
            ns[effort] = now_ns() - from;
            size[effort] = (double)at;
        }
        for (int form = 0; form < 2; form++) {
            double best = 1e18;
            for (int again = 0; again < 15; again++) {
                double from = now_ns();
                size_t at = 0, used;
                for (size_t v = 0; v < total; v++, at += used) {
                    struct slice s = slice_of(bytes + at, FLOAT_VECTOR_BYTES_MAX);
                    err e = form == 0 ? float_decode(s, CODEC_VECTOR_COUNT_MAX, out, &used)
                                      : float_decode_portable(s, CODEC_VECTOR_COUNT_MAX, out, &used);
                    if (e != OK)
                        return 1;
                }
                double took = now_ns() - from;
                best = took < best ? took : best;
            }
            ns[2 + form] = best;
        }
        double values = (double)(total * CODEC_VECTOR_COUNT_MAX);
        printf("%-18s %6.3f %6.3f %9.2f %9.2f %9.3f %9.3f\n", KIND_NAMES[kind], size[0] / values,
               size[1] / values, ns[0] / values, ns[1] / values, ns[2] / values, ns[3] / values);
    }
    free(in);
    free(bytes);
    return 0;
}
