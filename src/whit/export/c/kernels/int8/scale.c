/* x * factor + offset per channel. */
static void scale$suffix(const uint8_t *in, int pixels, int channels, const $factor *factor,
                  const $offset *offset, int32_t offset_scale, int shift, uint8_t *out)
{
    for (int p = 0; p < pixels; p++)
        for (int c = 0; c < channels; c++) {
            const int64_t product = (int64_t)in[p * channels + c] * factor[c];
            out[p * channels + c] =
                requantize(product + (int64_t)offset[c] * offset_scale, shift);
        }
}
