/*
 * Moment-based deskewing: each row is sheared in proportion to its height above the center of mass,
 * by the slope mu11 / mu02, so that mu11 of the result is zero. The mass of a pixel is its value
 * above the minimum of its channel, summed over channels.
 */
static float pixel_mass(const float *in, int channels, float minimum)
{
    float mass = -minimum;
    for (int c = 0; c < channels; c++)
        mass += in[c];
    return mass;
}

static void deskew(const float *in, struct shape shape, float *out)
{
    const int pixels = shape.height * shape.width, channels = shape.channels;
    float minimum = 0, total = 0, sum_x = 0, sum_y = 0, mu11 = 0, mu02 = 0;
    for (int c = 0; c < channels; c++) {
        float channel_minimum = in[c];
        for (int p = 1; p < pixels; p++)
            if (in[p * channels + c] < channel_minimum)
                channel_minimum = in[p * channels + c];
        minimum += channel_minimum;
    }
    for (int p = 0; p < pixels; p++) {
        const float mass = pixel_mass(in + p * channels, channels, minimum);
        total += mass;
        sum_x += mass * (p % shape.width);
        sum_y += mass * (p / shape.width);
    }
    total = total > 1e-6f ? total : 1e-6f;
    for (int p = 0; p < pixels; p++) {
        const float mass = pixel_mass(in + p * channels, channels, minimum);
        const float dy = p / shape.width - sum_y / total;
        mu11 += mass * (p % shape.width - sum_x / total) * dy;
        mu02 += mass * dy * dy;
    }
    mu02 = mu02 > 1e-6f ? mu02 : 1e-6f;
    for (int y = 0; y < shape.height; y++, in += shape.width * channels) {
        const float offset = mu11 / mu02 * (y - sum_y / total);
        for (int x = 0; x < shape.width; x++) {
            float source = x + offset;
            source = source < 0 ? 0 : source > shape.width - 1 ? shape.width - 1 : source;
            const int left = (int)source, right = left + 1 < shape.width ? left + 1 : left;
            const float fraction = source - left;
            for (int c = 0; c < channels; c++)
                *out++ = in[left * channels + c] * (1 - fraction) +
                         in[right * channels + c] * fraction;
        }
    }
}
