/*
 * Requantize the sums of one pixel. They are clamped as int32 first, since gcc vectorizes the
 * conversion to bytes well from int32 only.
 */
static void requantize_per_channel$suffix(int32_t *restrict sums, int channels,
                                   const $factor *restrict factor,
                                   const $offset *restrict offset, int32_t offset_scale,
                                   int shift, uint8_t *restrict out)
{
#ifdef DSP
    if (shift >= 16 && shift < 32) { /* so a shifted sum has 32 bits */
        for (int c = 0; c < channels; c++) {
            const int64_t sum = (int64_t)sums[c] * factor[c] + (int64_t)offset[c] * offset_scale;
            const uint32_t low = (uint32_t)sum, high = (uint32_t)(sum >> 32);
            out[c] = (uint8_t)__usat((int32_t)(low >> shift | high << (32 - shift)), 8);
        }
        return;
    }
#endif
    for (int c = 0; c < channels; c++)
        sums[c] = requantize((int64_t)sums[c] * factor[c] + (int64_t)offset[c] * offset_scale,
                             shift);
    for (int c = 0; c < channels; c++)
        out[c] = (uint8_t)sums[c];
}
