/* The mean of each window, rounded; what lies outside counts as `zero` where `counts_outside`. */
static void avgpool(const uint8_t *in, struct map from, struct window window, int counts_outside,
                    int zero, uint8_t *out, struct map to)
{
    for (int y = 0; y < to.height; y++)
        for (int x = 0; x < to.width; x++, out += to.channels)
            for (int c = 0; c < to.channels; c++) {
                int32_t sum = 0, count = 0;
                for (int ky = 0; ky < window.height; ky++)
                    for (int kx = 0; kx < window.width; kx++) {
                        const int from_y = y * window.step_y - window.around_y + ky;
                        const int from_x = x * window.step_x - window.around_x + kx;
                        const int inside = from_y >= 0 && from_y < from.height && from_x >= 0 &&
                                           from_x < from.width;
                        if (!inside && !counts_outside)
                            continue;
                        const int at = (from_y * from.width + from_x) * from.channels + c;
                        sum += inside ? in[at] : zero;
                        count++;
                    }
                out[c] = (uint8_t)((sum + count / 2) / count);
            }
}
