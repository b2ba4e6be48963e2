/* x * factor + offset, by channel. */
static void scale$suffix(const uint8_t *in, int places, int channels, const $factor *factor,
                  const $offset *offset, int32_t step, int shift, uint8_t *out)
{
    for (int p = 0; p < places; p++)
        for (int c = 0; c < channels; c++) {
            const int at = p * channels + c;
            out[at] = settle((int64_t)in[at] * factor[c] + (int64_t)offset[c] * step, shift);
        }
}
