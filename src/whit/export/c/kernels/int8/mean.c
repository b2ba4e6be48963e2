/* Global average pooling. */
static void mean(const uint8_t *in, int pixels, int channels, int32_t factor, int64_t offset,
                 int shift, uint8_t *out)
{
    for (int c = 0; c < channels; c++) {
        int32_t sum = 0;
        for (int p = 0; p < pixels; p++)
            sum += in[p * channels + c];
        out[c] = requantize((int64_t)sum * factor + offset, shift);
    }
}
