/* Constants of the integer vector's head, shared by its encoder and decoder. docs/codecs.md §2. */
#ifndef CODEC_INT_FORMAT_H
#define CODEC_INT_FORMAT_H

/* bits 0 … 2 of the head */
enum int_transform { INT_RUN = 0, INT_NONE = 1, INT_DELTA = 2, INT_BITMAP = 3, INT_DELTA2 = 4 };

#define INT_TRANSFORM_MASK 7u
#define INT_DIVISOR        8u  /* a divisor follows the head */
#define INT_PATCHED        16u /* the frame has patches */

#define INT_WIDTH_MAX 56u /* 57 … 63 are stored as 64 */

#endif
