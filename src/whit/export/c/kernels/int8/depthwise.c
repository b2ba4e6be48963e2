/* Depthwise convolution. weight[ky][kx][channel]. */
static void depthwise$suffix(const uint8_t *in, struct shape src, struct window window,
                      int zero_point, const int8_t *weight, const $factor *factor,
                      const $offset *offset, int32_t offset_scale, int shift, uint8_t *out,
                      struct shape dst)
{
    enum { CHANNELS = 16 }; /* accumulated at a time */
    for (int pixel = 0; pixel < dst.height * dst.width; pixel++)
        for (int first = 0; first < dst.channels; first += CHANNELS) {
            const int count = dst.channels - first < CHANNELS ? dst.channels - first : CHANNELS;
            int32_t sums[CHANNELS] = {0};
            for (int ky = 0; ky < window.height; ky++)
                for (int kx = 0; kx < window.width; kx++) {
                    const int8_t *w = weight + (ky * window.width + kx) * dst.channels + first;
                    const int y = pixel / dst.width * window.stride_y - window.padding_y +
                                  ky * window.dilation_y;
                    const int x = pixel % dst.width * window.stride_x - window.padding_x +
                                  kx * window.dilation_x;
                    if (y >= 0 && y < src.height && x >= 0 && x < src.width) {
                        const uint8_t *tap = in + (y * src.width + x) * src.channels + first;
                        for (int c = 0; c < count; c++)
                            sums[c] += tap[c] * w[c];
                    } else {
                        for (int c = 0; c < count; c++)
                            sums[c] += zero_point * w[c];
                    }
                }
            requantize_per_channel$suffix(sums, count, factor + first, offset + first, offset_scale,
                                   shift, out + pixel * dst.channels + first);
        }
}
