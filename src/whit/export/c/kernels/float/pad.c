/* Zero padding by `left` columns and `top` rows; negative values crop. */
static void pad(const float *in, struct shape src, int left, int top, float *out, struct shape dst)
{
    for (int y = 0; y < dst.height; y++)
        for (int x = 0; x < dst.width; x++)
            for (int c = 0; c < dst.channels; c++, out++) {
                const int in_y = y - top, in_x = x - left;
                const int inside = in_y >= 0 && in_y < src.height && in_x >= 0 &&
                                   in_x < src.width;
                *out = inside ? in[(in_y * src.width + in_x) * src.channels + c] : 0;
            }
}
