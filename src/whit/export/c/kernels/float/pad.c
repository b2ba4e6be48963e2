/* A map with the given one, or what it has room for, `top` lines down and zeros around. */
static void pad(const float *in, struct map from, int left, int top, float *out, struct map to)
{
    for (int y = 0; y < to.height; y++)
        for (int x = 0; x < to.width; x++)
            for (int c = 0; c < to.channels; c++, out++) {
                const int from_y = y - top, from_x = x - left;
                const int inside = from_y >= 0 && from_y < from.height && from_x >= 0 &&
                                   from_x < from.width;
                *out = inside ? in[(from_y * from.width + from_x) * from.channels + c] : 0;
            }
}
