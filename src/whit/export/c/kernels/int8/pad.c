/* Padding with `zero_point` by `left` columns and `top` rows; negative values crop. */
static void pad(const uint8_t *in, struct shape src, int left, int top,
                int zero_point, uint8_t *out, struct shape dst)
{
    for (int y = 0; y < dst.height; y++)
        for (int x = 0; x < dst.width; x++)
            for (int c = 0; c < dst.channels; c++, out++) {
                const int in_y = y - top, in_x = x - left;
                const int inside = in_y >= 0 && in_y < src.height && in_x >= 0 &&
                                   in_x < src.width;
                const int i = (in_y * src.width + in_x) * src.channels + c;
                *out = inside ? in[i] : (uint8_t)zero_point;
            }
}
