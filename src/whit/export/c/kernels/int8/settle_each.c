/* Sums of channels as outputs; in 32 bits first, as gcc packs bytes well from those alone. */
static void settle_each$suffix(int32_t *restrict sums, int channels, const $factor *restrict factor,
                        const $offset *restrict offset, int32_t step, int shift,
                        uint8_t *restrict out)
{
    for (int c = 0; c < channels; c++)
        sums[c] = settle((int64_t)sums[c] * factor[c] + (int64_t)offset[c] * step, shift);
    for (int c = 0; c < channels; c++)
        out[c] = (uint8_t)sums[c];
}
