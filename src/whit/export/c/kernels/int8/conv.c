/*
 * Convolution. weight[output channel][ky][kx][input channel of its group]. Each sum is requantized
 * by the factor and offset of its channel; an offset counts `offset_scale`.
 */
static void conv$suffix(const uint8_t *in, struct shape src, struct window window, int groups,
                 int zero_point, const int8_t *weight, const $factor *factor,
                 const $offset *offset, int32_t offset_scale, int shift, uint8_t *out,
                 struct shape dst)
{
    const int in_channels = src.channels / groups, out_channels = dst.channels / groups;
    const int size = window.height * window.width * in_channels, pixels = dst.height * dst.width;
    for (int pixel = 0; pixel < pixels; pixel += TILE_PIXELS) {
        int top[TILE_PIXELS], left[TILE_PIXELS];
        for (int p = 0; p < TILE_PIXELS; p++) {
            const int i = min_int(pixel + p, pixels - 1); /* the last pixel is repeated */
            top[p] = i / dst.width * window.stride_y - window.padding_y;
            left[p] = i % dst.width * window.stride_x - window.padding_x;
        }
        for (int channel = 0, channels; channel < dst.channels; channel += channels) {
            const int group = channel / out_channels;
            channels = min_int(TILE_CHANNELS, (group + 1) * out_channels - channel);
            int32_t sums[TILE_PIXELS][TILE_CHANNELS];
            tile_sums(in + group * in_channels, src, window, zero_point, top, left, in_channels,
                      weight + channel * size, size, channels, sums);
            for (int p = 0; p < TILE_PIXELS && pixel + p < pixels; p++)
                requantize_per_channel$suffix(sums[p], channels, factor + channel,
                                       offset + channel, offset_scale, shift,
                                       out + (pixel + p) * dst.channels + channel);
        }
    }
}
