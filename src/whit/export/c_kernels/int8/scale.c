/* x * factor + offset, by channel. */
static void scale(const uint8_t *in, int places, int channels, const int32_t *factor,
                  const int64_t *offset, int shift, uint8_t *out)
{
    for (int p = 0; p < places; p++)
        for (int c = 0; c < channels; c++) {
            const int at = p * channels + c;
            out[at] = settle((int64_t)in[at] * factor[c] + offset[c], shift);
        }
}
