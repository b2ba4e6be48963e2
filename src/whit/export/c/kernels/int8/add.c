/* a * factor_a + b * factor_b + offset; if `per_channel`, b holds one value per channel. */
static void add(const uint8_t *a, const uint8_t *b, int per_channel, int pixels, int channels,
                int32_t factor_a, int32_t factor_b, int64_t offset, int shift, uint8_t *out)
{
    for (int p = 0; p < pixels; p++)
        for (int c = 0; c < channels; c++) {
            const int i = p * channels + c;
            const int64_t sum = (int64_t)a[i] * factor_a +
                                (int64_t)b[per_channel ? c : i] * factor_b;
            out[i] = requantize(sum + offset, shift);
        }
}
