/* Depthwise convolution. weight[ky][kx][channel], bias[channel]. */
static void depthwise(const float *in, struct shape src, struct window window,
                      const float *weight, const float *bias, float *out, struct shape dst)
{
    for (int y = 0; y < dst.height; y++)
        for (int x = 0; x < dst.width; x++, out += dst.channels) {
            for (int c = 0; c < dst.channels; c++)
                out[c] = bias[c];
            for (int ky = 0; ky < window.height; ky++)
                for (int kx = 0; kx < window.width; kx++) {
                    const int in_y =
                        y * window.stride_y - window.padding_y + ky * window.dilation_y;
                    const int in_x =
                        x * window.stride_x - window.padding_x + kx * window.dilation_x;
                    if (in_y < 0 || in_y >= src.height || in_x < 0 || in_x >= src.width)
                        continue;
                    const float *tap = in + (in_y * src.width + in_x) * src.channels;
                    const float *w = weight + (ky * window.width + kx) * src.channels;
                    for (int c = 0; c < dst.channels; c++)
                        out[c] += tap[c] * w[c];
                }
        }
}
