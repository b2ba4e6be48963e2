/* a * factor_a + b * factor_b + offset; where `by_channel`, one b counts for every place. */
static void add(const uint8_t *a, const uint8_t *b, int by_channel, int places, int channels,
                int32_t factor_a, int32_t factor_b, int64_t offset, int shift, uint8_t *out)
{
    for (int p = 0; p < places; p++)
        for (int c = 0; c < channels; c++) {
            const int at = p * channels + c;
            const int64_t sum = (int64_t)a[at] * factor_a +
                                (int64_t)b[by_channel ? c : at] * factor_b;
            out[at] = settle(sum + offset, shift);
        }
}
