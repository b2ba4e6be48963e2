/* Convolution of each channel with a kernel of its own. weight[ky][kx][channel]. */
static void depthwise(const uint8_t *in, struct map from, struct window window, int zero,
                      const int8_t *weight, const int32_t *factor, const int64_t *offset,
                      int shift, uint8_t *out, struct map to)
{
    for (int y = 0; y < to.height; y++)
        for (int x = 0; x < to.width; x++, out += to.channels)
            for (int c = 0; c < to.channels; c++) {
                int32_t sum = 0;
                const int8_t *by = weight + c;
                for (int ky = 0; ky < window.height; ky++)
                    for (int kx = 0; kx < window.width; kx++, by += from.channels) {
                        const int from_y =
                            y * window.step_y - window.around_y + ky * window.apart_y;
                        const int from_x =
                            x * window.step_x - window.around_x + kx * window.apart_x;
                        const int inside = from_y >= 0 && from_y < from.height && from_x >= 0 &&
                                           from_x < from.width;
                        const int at = (from_y * from.width + from_x) * from.channels + c;
                        sum += (inside ? in[at] : zero) * *by;
                    }
                out[c] = settle((int64_t)sum * factor[c] + offset[c], shift);
            }
}
