/*
 * Convolution and max pooling of 2x2. The tile of four pixels is the window of an output; the
 * largest sum is requantized, or the smallest where the factor of a channel is negative.
 */
static void conv_maxpool$suffix(const uint8_t *in, struct shape src, struct window window, int groups,
                         int zero_point, const int8_t *weight, const $factor *factor,
                         const $offset *offset, int32_t offset_scale, int shift, uint8_t *out,
                         struct shape dst)
{
    const int in_channels = src.channels / groups, out_channels = dst.channels / groups;
    const int size = window.height * window.width * in_channels, pixels = dst.height * dst.width;
    for (int pixel = 0; pixel < pixels; pixel++, out += dst.channels) {
        int top[TILE_PIXELS], left[TILE_PIXELS];
        for (int p = 0; p < TILE_PIXELS; p++) {
            top[p] = (pixel / dst.width * 2 + p / 2) * window.stride_y - window.padding_y;
            left[p] = (pixel % dst.width * 2 + p % 2) * window.stride_x - window.padding_x;
        }
        for (int channel = 0, channels; channel < dst.channels; channel += channels) {
            const int group = channel / out_channels;
            channels = min_int(TILE_CHANNELS, (group + 1) * out_channels - channel);
            int32_t sums[TILE_PIXELS][TILE_CHANNELS];
            tile_sums(in + group * in_channels, src, window, zero_point, top, left, in_channels,
                      weight + channel * size, size, channels, sums);
            for (int c = 0; c < channels; c++) {
                const int32_t scale = factor[channel + c];
                const int32_t a = sums[0][c], b = sums[1][c], e = sums[2][c], f = sums[3][c];
                if (scale < 0)
                    sums[0][c] = min_int(min_int(a, b), min_int(e, f));
                else
                    sums[0][c] = max_int(max_int(a, b), max_int(e, f));
            }
            requantize_per_channel$suffix(sums[0], channels, factor + channel, offset + channel,
                                   offset_scale, shift, out + channel);
        }
    }
}
