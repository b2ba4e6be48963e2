/* Convolution of each channel with a kernel of its own. weight[ky][kx][channel], bias[channel]. */
static void depthwise(const float *in, struct map from, struct window window,
                      const float *weight, const float *bias, float *out, struct map to)
{
    for (int y = 0; y < to.height; y++)
        for (int x = 0; x < to.width; x++, out += to.channels) {
            for (int c = 0; c < to.channels; c++)
                out[c] = bias[c];
            for (int ky = 0; ky < window.height; ky++)
                for (int kx = 0; kx < window.width; kx++) {
                    const int from_y = y * window.step_y - window.around_y + ky * window.apart_y;
                    const int from_x = x * window.step_x - window.around_x + kx * window.apart_x;
                    if (from_y < 0 || from_y >= from.height || from_x < 0 || from_x >= from.width)
                        continue;
                    const float *read = in + (from_y * from.width + from_x) * from.channels;
                    const float *by = weight + (ky * window.width + kx) * from.channels;
                    for (int c = 0; c < to.channels; c++)
                        out[c] += read[c] * by[c];
                }
        }
}
