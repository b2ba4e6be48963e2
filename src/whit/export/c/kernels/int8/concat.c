/* Requantize a feature map into channels `first` on of a concatenation of `stride` channels. */
static void concat(const uint8_t *in, int pixels, int channels, int32_t factor, int64_t offset,
                   int shift, uint8_t *out, int first, int stride)
{
    for (int p = 0; p < pixels; p++)
        for (int c = 0; c < channels; c++)
            out[p * stride + first + c] =
                requantize((int64_t)in[p * channels + c] * factor + offset, shift);
}
