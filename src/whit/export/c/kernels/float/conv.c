/*
 * Register tile: outputs accumulated at a time, pixels that share each weight times adjacent
 * channels. gcc vectorizes the sums of 24 channels, clang those of 8.
 */
#ifdef __clang__
enum { TILE_PIXELS = 4, TILE_CHANNELS = 8 };
#else
enum { TILE_PIXELS = 4, TILE_CHANNELS = 24 };
#endif

/* The input of tap (ky, kx) for a window whose corner is (top, left); `zeros` is the padding. */
static inline const float *tap_at(const float *in, struct shape src, struct window window,
                                  const float *zeros, int top, int left, int ky, int kx)
{
    const int y = top + ky * window.dilation_y, x = left + kx * window.dilation_x;
    const int inside = y >= 0 && y < src.height && x >= 0 && x < src.width;
    return inside ? in + (y * src.width + x) * src.channels : zeros;
}

/*
 * TILE_PIXELS pixels x TILE_CHANNELS channels of one group; only `count` pixels are written.
 * in_channels, out_channels: of the group. stride: output channels of all groups.
 */
static void conv_tile(const float *in, struct shape src, struct window window,
                      const float *zeros, const int *top, const int *left, int in_channels,
                      const float *weight, const float *bias, int out_channels, float *out,
                      int stride, int count)
{
    float sum0[TILE_CHANNELS], sum1[TILE_CHANNELS], sum2[TILE_CHANNELS], sum3[TILE_CHANNELS];
    for (int o = 0; o < TILE_CHANNELS; o++)
        sum0[o] = sum1[o] = sum2[o] = sum3[o] = bias[o];
    for (int ky = 0; ky < window.height; ky++)
        for (int kx = 0; kx < window.width; kx++) {
            const float *x[TILE_PIXELS];
            for (int p = 0; p < TILE_PIXELS; p++)
                x[p] = tap_at(in, src, window, zeros, top[p], left[p], ky, kx);
            for (int i = 0; i < in_channels; i++, weight += out_channels) {
                const float x0 = x[0][i], x1 = x[1][i], x2 = x[2][i], x3 = x[3][i];
                for (int o = 0; o < TILE_CHANNELS; o++) {
                    sum0[o] += x0 * weight[o];
                    sum1[o] += x1 * weight[o];
                    sum2[o] += x2 * weight[o];
                    sum3[o] += x3 * weight[o];
                }
            }
        }
    for (int o = 0; o < TILE_CHANNELS; o++)
        out[o] = sum0[o];
    if (count > 1)
        for (int o = 0; o < TILE_CHANNELS; o++)
            out[stride + o] = sum1[o];
    if (count > 2)
        for (int o = 0; o < TILE_CHANNELS; o++)
            out[2 * stride + o] = sum2[o];
    if (count > 3)
        for (int o = 0; o < TILE_CHANNELS; o++)
            out[3 * stride + o] = sum3[o];
}

/* One pixel of a group with fewer than TILE_CHANNELS output channels. */
static void conv_pixel(const float *in, struct shape src, struct window window,
                       const float *zeros, int top, int left, int in_channels,
                       const float *weight, const float *bias, int out_channels, float *out)
{
    for (int o = 0; o < out_channels; o++)
        out[o] = bias[o];
    for (int ky = 0; ky < window.height; ky++)
        for (int kx = 0; kx < window.width; kx++) {
            const float *x = tap_at(in, src, window, zeros, top, left, ky, kx);
            for (int i = 0; i < in_channels; i++, weight += out_channels)
                for (int o = 0; o < out_channels; o++)
                    out[o] += x[i] * weight[o];
        }
}

/* Convolution. weight[group][ky][kx][input channel][output channel], bias[output channel]. */
static void conv(const float *in, struct shape src, struct window window, int groups,
                 const float *zeros, const float *weight, const float *bias, float *out,
                 struct shape dst)
{
    const int in_channels = src.channels / groups, out_channels = dst.channels / groups;
    const int pixels = dst.height * dst.width;
    for (int group = 0; group < groups; group++) {
        for (int pixel = 0; pixel < pixels; pixel += TILE_PIXELS) {
            const int count = pixels - pixel < TILE_PIXELS ? pixels - pixel : TILE_PIXELS;
            int top[TILE_PIXELS], left[TILE_PIXELS];
            for (int p = 0; p < TILE_PIXELS; p++) {
                const int i = p < count ? pixel + p : pixel;
                top[p] = i / dst.width * window.stride_y - window.padding_y;
                left[p] = i % dst.width * window.stride_x - window.padding_x;
            }
            float *y = out + pixel * dst.channels;
            if (out_channels < TILE_CHANNELS) {
                for (int p = 0; p < count; p++)
                    conv_pixel(in, src, window, zeros, top[p], left[p], in_channels, weight, bias,
                               out_channels, y + p * dst.channels);
                continue;
            }
            /* The last tile overlaps the one before it, so that every tile is full. */
            for (int next = 0; next < out_channels; next += TILE_CHANNELS) {
                const int last = out_channels - TILE_CHANNELS, first = next < last ? next : last;
                conv_tile(in, src, window, zeros, top, left, in_channels, weight + first,
                          bias + first, out_channels, y + first, dst.channels, count);
            }
        }
        in += in_channels;
        out += out_channels;
        bias += out_channels;
        weight += window.height * window.width * in_channels * out_channels;
    }
}
