/* Copy a constant. */
static void constant(const $number *value, int count, $number *out)
{
    for (int i = 0; i < count; i++)
        out[i] = value[i];
}
