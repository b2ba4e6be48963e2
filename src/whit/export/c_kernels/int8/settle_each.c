/* Sums of channels as outputs; in 32 bits first, as gcc packs bytes well from those alone. */
static void settle_each(int32_t *restrict sums, int channels, const int32_t *restrict factor,
                        const int64_t *restrict offset, int shift, uint8_t *restrict out)
{
    for (int c = 0; c < channels; c++)
        sums[c] = settle((int64_t)sums[c] * factor[c] + offset[c], shift);
    for (int c = 0; c < channels; c++)
        out[c] = (uint8_t)sums[c];
}
