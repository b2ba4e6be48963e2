/*
 * Requantize the sums of one pixel. They are clamped as int32 first, since gcc vectorizes the
 * conversion to bytes well from int32 only.
 */
static void requantize_per_channel$suffix(int32_t *restrict sums, int channels,
                                   const $factor *restrict factor,
                                   const $offset *restrict offset, int32_t offset_scale,
                                   int shift, uint8_t *restrict out)
{
    for (int c = 0; c < channels; c++)
        sums[c] = requantize((int64_t)sums[c] * factor[c] + (int64_t)offset[c] * offset_scale,
                             shift);
    for (int c = 0; c < channels; c++)
        out[c] = (uint8_t)sums[c];
}
