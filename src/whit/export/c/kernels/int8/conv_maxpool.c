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
    for (int pixel = 0; pixel < pixels; pixel++, out += dst.channels)
        for (int channel = 0, channels; channel < dst.channels; channel += channels) {
            const int group = channel / out_channels;
            channels = min_int(TILE_CHANNELS, (group + 1) * out_channels - channel);
            int16_t x[TILE_PIXELS][TILE_DEPTH];
            int32_t sums[TILE_PIXELS][TILE_CHANNELS] = {{0}};
            for (int first = 0; first < size; first += TILE_DEPTH) {
                const int count = min_int(TILE_DEPTH, size - first);
                for (int p = 0; p < TILE_PIXELS; p++) {
                    const int y = pixel / dst.width * 2 + p / 2, x_out = pixel % dst.width * 2 + p % 2;
                    im2col(in + group * in_channels, src, window, zero_point,
                           y * window.stride_y - window.padding_y,
                           x_out * window.stride_x - window.padding_x, in_channels, first, count,
                           x[p]);
                }
                multiply_accumulate(x, count, weight + channel * size + first, size, channels,
                                    sums);
            }
            for (int c = 0; c < channels; c++) {
                const int32_t a = sums[0][c], b = sums[1][c], e = sums[2][c], f = sums[3][c];
                const int32_t scale = factor[channel + c];
                if (scale < 0)
                    sums[0][c] = min_int(min_int(a, b), min_int(e, f));
                else
                    sums[0][c] = max_int(max_int(a, b), max_int(e, f));
            }
            requantize_per_channel$suffix(sums[0], channels, factor + channel, offset + channel,
                                   offset_scale, shift, out + channel);
        }
}
