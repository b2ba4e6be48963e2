/* Replace the sum of each channel by the one that is largest when it is multiplied by its factor. */
static void pool_sums$suffix(int32_t sums[TILE_PIXELS][TILE_CHANNELS], int channels,
                      const $factor *factor)
{
    for (int c = 0; c < channels; c++) {
        const int32_t scale = factor[c];
        const int32_t a = sums[0][c], b = sums[1][c], e = sums[2][c], f = sums[3][c];
        if (scale < 0)
            sums[0][c] = min_int(min_int(a, b), min_int(e, f));
        else
            sums[0][c] = max_int(max_int(a, b), max_int(e, f));
    }
}

/*
 * Convolution. weight[output channel][ky][kx][input channel of its group]. Each sum is requantized
 * by the factor and offset of its channel; an offset counts `offset_scale`. With `pool`, max pooling
 * of 2x2 follows: the tile is the window of one output, and its largest sum is requantized, or the
 * smallest where the factor of a channel is negative.
 */
static OWN_FRAME void conv$suffix(const uint8_t *in, struct shape src, struct window window, int groups,
                           int pool, int zero_point, const int8_t *weight, const $factor *factor,
                           const $offset *offset, int32_t offset_scale, int shift, uint8_t *out,
                           struct shape dst)
{
    const int in_channels = src.channels / groups, out_channels = dst.channels / groups;
    const int size = window.height * window.width * in_channels, pixels = dst.height * dst.width;
    const int step = pool ? 1 : TILE_PIXELS;
    for (int pixel = 0; pixel < pixels; pixel += step) {
        int top[TILE_PIXELS], left[TILE_PIXELS];
        for (int p = 0; p < TILE_PIXELS; p++) {
            const int i = pool ? pixel : min_int(pixel + p, pixels - 1); /* the last is repeated */
            const int y = i / dst.width, x = i % dst.width;
            top[p] = (pool ? 2 * y + p / 2 : y) * window.stride_y - window.padding_y;
            left[p] = (pool ? 2 * x + p % 2 : x) * window.stride_x - window.padding_x;
        }
        for (int channel = 0, channels; channel < dst.channels; channel += channels) {
            const int group = channel / out_channels;
            channels = min_int(TILE_CHANNELS, (group + 1) * out_channels - channel);
            int32_t sums[TILE_PIXELS][TILE_CHANNELS];
            tile_sums(in + group * in_channels, src, window, zero_point, top, left, in_channels,
                      weight + channel * size, size, channels, sums);
            if (pool)
                pool_sums$suffix(sums, channels, factor + channel);
            for (int p = 0; p < step && pixel + p < pixels; p++)
                requantize_per_channel$suffix(sums[p], channels, factor + channel,
                                       offset + channel, offset_scale, shift,
                                       out + (pixel + p) * dst.channels + channel);
        }
    }
}
